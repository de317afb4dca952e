{{- /* After a failover, the new leader exports the same series from another pod. `max by` merges them. */ -}}
{{- define "f2llm.rules" -}}
{{- $alerts := .Values.alerts }}
{{- $job := "max by (namespace, job)" }}
{{- $training := printf "and on (namespace, job) %s (f2llm_job_phase{phase=\"Training\"})" $job }}
{{- $underWay := printf "and on (namespace, job) %s (f2llm_job_phase{phase=~\"Starting|Training|Retrying\"})" $job }}
{{- $window := max 1 (div $alerts.noProgressMinutes 3) }}
groups:
  - name: f2llm-costs
    interval: 1m
    rules:
      - record: f2llm:namespace_gpus
        expr: sum by (namespace) ({{ $job }} (f2llm_job_gpus))
      # Rules of a group are evaluated once a minute: 60 samples are an hour.
      - record: f2llm:namespace_gpu_hours:sum30d
        expr: sum_over_time(f2llm:namespace_gpus[30d]) / 60
      - record: f2llm:gpu_hour_price
        expr: vector({{ $alerts.gpuHourPrice }})
      - record: f2llm:namespace_cost:sum30d
        expr: f2llm:namespace_gpu_hours:sum30d * scalar(f2llm:gpu_hour_price)
      {{- range .Values.teams }}
      {{- if .monthlyBudget }}
      - record: f2llm:namespace_budget
        expr: vector({{ .monthlyBudget }})
        labels: {namespace: {{ .name }}}
      {{- end }}
      {{- end }}
      {{- include "f2llm.alert" (dict "root" $ "name" "F2LLMBudgetExceeded" "severity" "warning" "minutes" 0
        "expr" "f2llm:namespace_cost:sum30d > on (namespace) f2llm:namespace_budget"
        "summary" "{{ $labels.namespace }} has spent its budget"
        "description" "Its GPUs of the last 30 days cost {{ $value | humanize }}.") | nindent 6 }}
  - name: f2llm-alerts
    interval: 30s
    rules:
      {{- include "f2llm.alert" (dict "root" $ "name" "F2LLMNoProgress" "severity" "critical"
        "minutes" (sub $alerts.noProgressMinutes $window)
        "expr" (printf "%s (changes(f2llm_job_step[%vm])) == 0 %s" $job $window $training)
        "summary" "{{ $labels.namespace }}/{{ $labels.job }} finishes no steps"
        "description" (printf "Its phase is Training, and it has finished no step for %v minutes." $alerts.noProgressMinutes)) | nindent 6 }}
      {{- include "f2llm.alert" (dict "root" $ "name" "F2LLMCheckpointStale" "severity" "warning" "minutes" 5
        "expr" (printf "time() - (%s (f2llm_job_last_checkpoint_timestamp_seconds) or %s (f2llm_job_attempt_started_timestamp_seconds)) > %v %s"
          $job $job (mul $alerts.checkpointMinutes 60) $training)
        "summary" "{{ $labels.namespace }}/{{ $labels.job }} has no recent checkpoint"
        "description" "The newest checkpoint is {{ $value | humanizeDuration }} old. A failure now would cost that much work.") | nindent 6 }}
      {{- include "f2llm.alert" (dict "root" $ "name" "F2LLMRestartLoop" "severity" "warning" "minutes" 0
        "expr" (printf "%s (increase(f2llm_job_attempts[1h])) + on (namespace, job) %s (increase(f2llm_job_restarts_by_reason{reason=\"Failure\"}[1h])) > %v or %s (increase(f2llm_job_attempts[1h])) > %v"
          $job $job $alerts.restartsPerHour $job $alerts.restartsPerHour)
        "summary" "{{ $labels.namespace }}/{{ $labels.job }} restarts too often"
        "description" "{{ $value | humanize }} starts in the last hour, without those after a preemption or a resize.") | nindent 6 }}
      {{- include "f2llm.alert" (dict "root" $ "name" "F2LLMBelowMinimumWorkers" "severity" "warning"
        "minutes" $alerts.belowMinimumMinutes
        "expr" (printf "%s (f2llm_job_workers) < on (namespace, job) %s (f2llm_job_workers_min) %s" $job $job $underWay)
        "summary" "{{ $labels.namespace }}/{{ $labels.job }} has fewer workers than it needs"
        "description" "{{ $value }} workers are ready, fewer than workers.min of the job spec.") | nindent 6 }}
      {{- include "f2llm.alert" (dict "root" $ "name" "F2LLMGpuPending" "severity" "warning" "minutes" $alerts.gpuPendingMinutes
        "expr" (printf "%s (f2llm_job_gpus_wanted) - on (namespace, job) %s (f2llm_job_gpus) > 0 %s" $job $job $underWay)
        "summary" "{{ $labels.namespace }}/{{ $labels.job }} waits for GPUs"
        "description" "{{ $value }} of the requested GPUs are missing.") | nindent 6 }}
      {{- include "f2llm.alert" (dict "root" $ "name" "F2LLMLossNotFinite" "severity" "critical" "minutes" 0
        "expr" (printf "time() - max by (namespace, job) (f2llm_job_last_failure_timestamp_seconds{reason=\"LossNotFinite\"}) < 86400 and on (namespace, job) %s (f2llm_job_phase{phase=\"Failed\"})" $job)
        "summary" "{{ $labels.namespace }}/{{ $labels.job }} stopped because of a non-finite loss"
        "description" "A loss or a gradient was not finite; the job's status names the micro-batch and how to resume.") | nindent 6 }}
      {{- include "f2llm.alert" (dict "root" $ "name" "F2LLMStoreErrors" "severity" "critical" "minutes" 0
        "expr" (printf "%s or time() - max by (namespace, job) (f2llm_job_last_failure_timestamp_seconds{error_class=\"storage\"}) < %v or %s (rate(f2llm_job_store_retries[5m])) * 60 > %v"
          "time() - max by (namespace, job) (f2llm_job_store_unreachable_timestamp_seconds) > 60"
          (mul $alerts.storeFailureMinutes 60) $job $alerts.storeRetriesPerMinute)
        "summary" "{{ $labels.namespace }}/{{ $labels.job }} cannot use its object store"
        "description" (printf "The store does not answer, or an attempt failed with a storage error in the last %v minutes, or many reads are repeated." $alerts.storeFailureMinutes)) | nindent 6 }}
      {{- include "f2llm.alert" (dict "root" $ "name" "F2LLMOperatorDown" "severity" "critical" "minutes" $alerts.operatorDownMinutes
        "expr" "absent(f2llm_queue_length)"
        "summary" "No operator is running"
        "description" "Running jobs continue. Jobs do not start, scale or retry.") | nindent 6 }}
{{- end }}
{{- define "f2llm.alert" -}}
- alert: {{ .name }}
  expr: {{ .expr | quote }}
  {{- if .minutes }}
  for: {{ .minutes }}m
  {{- end }}
  labels: {severity: {{ .severity }}}
  annotations:
    summary: {{ .summary | quote }}
    description: {{ .description | quote }}
    runbook_url: {{ printf "%s#%s" .root.Values.alerts.runbooks (.name | lower) }}
{{- end }}
