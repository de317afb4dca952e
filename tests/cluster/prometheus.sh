#!/usr/bin/env bash
# Install the Prometheus operator, and one Prometheus that uses every monitor and every rule of the cluster.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$(dirname "$0")/versions.sh"
lab=${LAB:-/run/f2llm-lab}
export KUBECONFIG=$lab/kubeconfig
for name in prometheus prometheus-config-reloader; do # pods of the operator rely on the entry points of the images
  python3 "$here/programs/make_image.py" "$lab/images/$name.tar" "localhost/$name:lab" --file "bin/$name=$bin/$name" --entrypoint "/bin/$name"
  ctr -a "$lab/containerd.sock" -n k8s.io image import "$lab/images/$name.tar" >/dev/null
done
kubectl apply --server-side -f <(cat "$bin"/../platform-crds/monitoring.coreos.com_*.yaml | sed 's/^apiVersion: apiext/---\n&/') | tail -1
kubectl wait --for=condition=Established crd/prometheuses.monitoring.coreos.com --timeout=60s
kubectl apply --server-side -f - <<T
apiVersion: v1
kind: Namespace
metadata: {name: monitoring, labels: {f2llm.dev/scrapes: "true"}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: operator, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus-operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: operator, namespace: monitoring}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: prometheus-operator, namespace: monitoring}
spec:
  selector: {matchLabels: {app: prometheus-operator}}
  template:
    metadata: {labels: {app: prometheus-operator}}
    spec:
      serviceAccountName: operator
      containers:
        - name: operator
          image: localhost/f2llm-ray:test
          imagePullPolicy: Never
          command: ["$bin/prometheus-operator"]
          args: ["--prometheus-config-reloader=localhost/prometheus-config-reloader:lab", "--config-reloader-cpu-request=0"]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: prometheus}
rules:
  - {apiGroups: [""], resources: [services, endpoints, pods], verbs: [get, list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: prometheus}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: monitoring}]
---
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata: {name: lab, namespace: monitoring}
spec:
  image: localhost/prometheus:lab
  imagePullPolicy: Never
  serviceAccountName: prometheus
  evaluationInterval: 5s
  serviceMonitorSelector: {}
  serviceMonitorNamespaceSelector: {}
  podMonitorSelector: {}
  podMonitorNamespaceSelector: {}
  ruleSelector: {}
  ruleNamespaceSelector: {}
  resources: {requests: {cpu: 10m, memory: 64Mi}}
T
kubectl -n monitoring rollout status deployment/prometheus-operator --timeout=120s
kubectl -n monitoring wait --for=condition=Available prometheus/lab --timeout=180s
