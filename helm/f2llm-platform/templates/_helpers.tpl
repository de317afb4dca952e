{{- define "f2llm.labels" -}}
app.kubernetes.io/name: f2llm-platform
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- /* True if the chart runs an S3 server in the cluster: on a volume for trials, or in front of Azure Blob Storage. */ -}}
{{- define "f2llm.store" -}}
{{- if has .Values.storage.provider (list "trial" "azure") }}true{{ end }}
{{- end }}
{{- define "f2llm.karpenter" -}}
{{- if has .Values.nodes.provider (list "aws" "aks") }}true{{ end }}
{{- end }}
{{- define "f2llm.storeLabels" -}}
app.kubernetes.io/name: f2llm-store
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- /* A CEL expression: whether the string v matches one of the patterns. `*` stands for any characters. */ -}}
{{- define "f2llm.matches" -}}
{{- $parts := list }}{{ range . }}{{ $parts = append $parts (regexQuoteMeta . | replace "\\*" ".*") }}{{ end -}}
{{- if $parts }}v.matches(r'^({{ join "|" $parts }})$'){{ else }}false{{ end }}
{{- end }}
