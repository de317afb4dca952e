{{- /* Each team may read the shared prefix, and may read, write and delete below its own prefix. AWS denies requests without TLS. */ -}}
{{- define "f2llm.bucketPolicy" -}}
{{- $storage := .Values.storage }}
{{- $bucket := printf "arn:aws:s3:::%s" $storage.bucket }}
{{- $statements := list }}
{{- if eq $storage.provider "aws" }}
{{- $statements = list (dict "Sid" "OnlyWithTls" "Effect" "Deny" "Principal" "*" "Action" "s3:*"
  "Resource" (list $bucket (printf "%s/*" $bucket)) "Condition" (dict "Bool" (dict "aws:SecureTransport" "false"))) }}
{{- end }}
{{- range .Values.teams }}
{{- $who := dict "AWS" (required (printf "teams.%s.identity: the ARN of the role of its pods" .name) .identity) }}
{{- $sid := .name | replace "-" " " | title | replace " " "" }}
{{- $statements = concat $statements (list
  (dict "Sid" (printf "%sLists" $sid) "Effect" "Allow" "Principal" $who "Action" "s3:ListBucket" "Resource" $bucket
    "Condition" (dict "StringLike" (dict "s3:prefix" (list (printf "%s/*" .name) (printf "%s/*" $storage.sharedPrefix)))))
  (dict "Sid" (printf "%sReads" $sid) "Effect" "Allow" "Principal" $who "Action" "s3:GetObject"
    "Resource" (list (printf "%s/%s/*" $bucket .name) (printf "%s/%s/*" $bucket $storage.sharedPrefix)))
  (dict "Sid" (printf "%sWrites" $sid) "Effect" "Allow" "Principal" $who
    "Action" (list "s3:PutObject" "s3:DeleteObject" "s3:AbortMultipartUpload")
    "Resource" (printf "%s/%s/*" $bucket .name))) }}
{{- end }}
{{- dict "Version" "2012-10-17" "Statement" $statements | toJson }}
{{- end }}
{{- /* Rules that delete parts of abandoned uploads and, in a bucket with versions, deleted versions. */ -}}
{{- define "f2llm.lifecycle" -}}
{{- $rules := list
  (dict "ID" "abandoned-uploads" "Status" "Enabled" "Filter" (dict "Prefix" "")
    "AbortIncompleteMultipartUpload" (dict "DaysAfterInitiation" (int .Values.storage.uploadDays)))
  (dict "ID" "deleted-versions" "Status" "Enabled" "Filter" (dict "Prefix" "")
    "NoncurrentVersionExpiration" (dict "NoncurrentDays" (int .Values.storage.noncurrentDays))) }}
{{- dict "Rules" $rules | toJson }}
{{- end }}
{{- define "f2llm.googleLifecycle" -}}
{{- $rules := list
  (dict "action" (dict "type" "AbortIncompleteMultipartUpload") "condition" (dict "age" (int .Values.storage.uploadDays)))
  (dict "action" (dict "type" "Delete") "condition" (dict "daysSinceNoncurrentTime" (int .Values.storage.noncurrentDays))) }}
{{- dict "lifecycle" (dict "rule" $rules) | toJson }}
{{- end }}
{{- /* A binding for the objects below a prefix. Takes bucket, who, role, title and prefix. A listing is a request to the bucket, so
       the condition also checks the prefix of the listing. The comma in this expression is the reason for the file. */ -}}
{{- define "f2llm.googleBinding" -}}
{{- $objects := printf "resource.name.startsWith(\"projects/_/buckets/%s/objects/%s/\")" .bucket .prefix }}
{{- $lists := printf "api.getAttribute(\"storage.googleapis.com/objectListPrefix\", \"\").startsWith(\"%s/\")" .prefix -}}
cat >f2llm-{{ .title }}.json <<'END'
{{ dict "title" .title "expression" (printf "%s || %s" $objects $lists) | toJson }}
END
gcloud storage buckets add-iam-policy-binding gs://{{ .bucket }} --member={{ .who }} \
  --role={{ .role }} --condition-from-file=f2llm-{{ .title }}.json
{{- end }}
{{- define "f2llm.googleBindings" -}}
{{- $storage := .Values.storage }}
{{- range .Values.teams }}
{{- $who := printf "serviceAccount:%s" (required (printf "teams.%s.identity: the service account of its pods" .name) .identity) }}
{{ include "f2llm.googleBinding" (dict "bucket" $storage.bucket "who" $who "role" "roles/storage.objectUser"
  "title" .name "prefix" .name) }}
{{ include "f2llm.googleBinding" (dict "bucket" $storage.bucket "who" $who "role" "roles/storage.objectViewer"
  "title" (printf "%s-shared" .name) "prefix" $storage.sharedPrefix) }}
{{- end }}
{{- end }}
