{{- /* A NodePool of Karpenter. Takes root, name, role (head or gpu), capacity, instanceTypes, weight, limits and taints. */ -}}
{{- define "f2llm.nodepool" -}}
{{- $aws := eq .root.Values.nodes.provider "aws" -}}
apiVersion: karpenter.sh/v1
kind: NodePool
metadata:
  name: {{ .name }}
  labels: {{- include "f2llm.labels" .root | nindent 4 }}
spec:
  {{- with .weight }}
  weight: {{ . }}
  {{- end }}
  limits: {{- toYaml .limits | nindent 4 }}
  disruption:
    # Pods request not to be moved. These budgets protect the nodes too. Karpenter may remove empty nodes.
    consolidationPolicy: WhenEmpty
    consolidateAfter: 10m
    budgets:
      - {nodes: "0", reasons: [Underutilized, Drifted]}
      - {nodes: 100%, reasons: [Empty]}
  template:
    metadata:
      labels:
        f2llm.dev/pool: {{ .role }}
    spec:
      # If a node expired, its pods would be deleted with it.
      expireAfter: Never
      nodeClassRef:
        group: {{ $aws | ternary "karpenter.k8s.aws" "karpenter.azure.com" }}
        kind: {{ $aws | ternary "EC2NodeClass" "AKSNodeClass" }}
        name: f2llm
      requirements:
        - {key: kubernetes.io/os, operator: In, values: [linux]}
        - {key: kubernetes.io/arch, operator: In, values: [amd64]}
        - {key: karpenter.sh/capacity-type, operator: In, values: [{{ .capacity }}]}
        - key: node.kubernetes.io/instance-type
          operator: In
          values: {{- toYaml .instanceTypes | nindent 12 }}
        {{- with .zones }}
        - key: topology.kubernetes.io/zone
          operator: In
          values: {{- toYaml . | nindent 12 }}
        {{- end }}
      taints: {{- toYaml .taints | nindent 8 }}
{{- end }}
