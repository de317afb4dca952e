{{- define "f2llm.labels" -}}
app.kubernetes.io/name: f2llm-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "f2llm.selector" -}}
app.kubernetes.io/name: f2llm-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "f2llm.account" -}}
{{ .Values.serviceAccount.name | default "f2llm-operator" }}
{{- end }}
