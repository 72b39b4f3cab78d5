{{/* Shared by the worker and by the pods that run "worker check": the same environment and files. */}}

{{- define "terbayar.worker.pod" -}}
{{- include "terbayar.pod" (dict "root" . "component" .Values.worker "serviceAccount" (include "terbayar.serviceAccountName" .) "volumes" (include "terbayar.worker.volumes" .)) }}
{{- end }}

{{- define "terbayar.worker.container" -}}
{{- include "terbayar.container" (dict "root" . "component" .Values.worker "env" (include "terbayar.worker.env" .) "volumeMounts" (include "terbayar.worker.volumeMounts" .)) }}
{{- end }}

{{/* Settings that are not secret. An empty value is omitted: the worker uses its default. */}}
{{- define "terbayar.worker.settings" -}}
{{ include "terbayar.settings" . }}
{{- with .Values.amdigipay }}
{{- if .enabled }}
AMDIGIPAY_BASE_URL: {{ .baseUrl | quote }}
AMDIGIPAY_USERNAME: {{ .username | quote }}
AMDIGIPAY_SIGNATURE_SCHEME: {{ .signatureScheme | quote }}
{{- with .signatureFields }}
AMDIGIPAY_SIGNATURE_FIELDS: {{ join "," . | quote }}
{{- end }}
{{- with .rateLimit }}
AMDIGIPAY_RATE_LIMIT: {{ . | quote }}
{{- end }}
AMDIGIPAY_STATUS_MAP: {{ .statusMap | quote }}
AMDIGIPAY_LIST_METHOD: {{ .listMethod | quote }}
AMDIGIPAY_LIST_LIMIT: {{ .listLimit | int | quote }}
AMDIGIPAY_LOGIN_ENCODING: {{ .loginEncoding | quote }}
{{- end }}
{{- end }}
{{- with .Values.paydia }}
{{- if .enabled }}
PAYDIA_BASE_URL: {{ .baseUrl | quote }}
PAYDIA_CLIENT_ID: {{ .clientId | quote }}
PAYDIA_PRIVATE_KEY_FILE: /etc/terbayar/paydia/private-key.pem
{{- with .merchantId }}
PAYDIA_MERCHANT_ID: {{ . | quote }}
{{- end }}
PAYDIA_CHANNEL_ID: {{ .channelId | quote }}
PAYDIA_QUEUE_TTL: {{ .queueTTL | quote }}
{{- with .rateLimit }}
PAYDIA_RATE_LIMIT: {{ . | quote }}
{{- end }}
{{- with .customerTokenPrefix }}
PAYDIA_CUSTOMER_TOKEN_PREFIX: {{ . | quote }}
{{- end }}
PAYDIA_QUERY_EMPTY_REFERENCE: {{ .queryEmptyReference | quote }}
{{- end }}
{{- end }}
{{- if .Values.retryPolicy }}
RETRY_POLICY_FILE: /etc/terbayar/retry-policy/retry-policy.yaml
{{- end }}
{{- with .Values.webhooks }}
{{- if .existingSecret }}
{{- with .secretKeys.file }}
WEBHOOKS_FILE: {{ printf "/etc/terbayar/webhooks/%s" . | quote }}
{{- end }}
{{- with .allow }}
WEBHOOK_ALLOW: {{ join "," . | quote }}
{{- end }}
WEBHOOK_SCHEDULE: {{ .schedule | quote }}
{{- end }}
{{- end }}
EVENTS_RETENTION: {{ .Values.eventsRetention | quote }}
RETENTION: {{ .Values.retention | quote }}
{{- with .Values.worker }}
WORKER_CONCURRENCY: {{ .concurrency | int | quote }}
WORKER_HTTP_ADDR: ":8080"
WORKER_SHUTDOWN_TIMEOUT: {{ .shutdownTimeout | quote }}
GATEWAY_TIMEOUT: {{ .gatewayTimeout | quote }}
GATEWAY_BREAKER_FAILURES: {{ .breakerFailures | int | quote }}
GATEWAY_BREAKER_PAUSE: {{ .breakerPause | quote }}
GATEWAY_REFUSALS: {{ .refusals | int | quote }}
STATUS_POLL_INTERVAL: {{ .statusPollInterval | quote }}
STATUS_FULL_SCAN_INTERVAL: {{ .statusFullScanInterval | quote }}
EXPIRY_GRACE: {{ .expiryGrace | quote }}
LATE_PAYMENT_WINDOW: {{ .latePaymentWindow | quote }}
LOG_LEVEL: {{ .log.level | quote }}
LOG_FORMAT: {{ .log.format | quote }}
{{- end }}
{{- end }}

{{- define "terbayar.worker.env" -}}
{{- include "terbayar.plainEnv" (include "terbayar.worker.settings" .) }}
{{- include "terbayar.redisEnv" . }}
{{- with .Values.amdigipay }}
{{- if .enabled }}
{{ include "terbayar.secretEnv" (dict "optional" $.optional "variable" "AMDIGIPAY_PASSWORD" "secret" .existingSecret "key" .secretKeys.password) }}
{{- if eq .signatureScheme "hmac-sha256" }}
{{ include "terbayar.secretEnv" (dict "optional" $.optional "variable" "AMDIGIPAY_SIGNATURE_KEY" "secret" .existingSecret "key" .secretKeys.signatureKey) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.paydia }}
{{- if .enabled }}
{{ include "terbayar.secretEnv" (dict "optional" $.optional "variable" "PAYDIA_CLIENT_SECRET" "secret" .existingSecret "key" .secretKeys.clientSecret) }}
{{- end }}
{{- end }}
{{- with .Values.monitoring }}
{{- if .existingSecret }}
{{ include "terbayar.secretEnv" (dict "optional" $.optional "variable" "MONITORING_USERS" "secret" .existingSecret "key" .key) }}
{{- end }}
{{- end }}
{{- with .Values.webhooks }}
{{- if and .existingSecret (not .secretKeys.file) }}
{{ include "terbayar.secretEnv" (dict "optional" $.optional "variable" "WEBHOOK_URL" "secret" .existingSecret "key" .secretKeys.url) }}
{{ include "terbayar.secretEnv" (dict "optional" $.optional "variable" "WEBHOOK_SECRET" "secret" .existingSecret "key" .secretKeys.secret) }}
{{- end }}
{{- end }}
{{- with .Values.worker.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The retry policy is a file whose content is an annotation of the pod, so that it is a part of the
pod template, as the settings are.
*/}}
{{- define "terbayar.worker.annotations" -}}
{{- with .Values.retryPolicy }}
terbayar/retry-policy: |
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Secrets and ConfigMaps that are mounted as files. Mode 0440; the group is fsGroup. */}}
{{- define "terbayar.worker.volumes" -}}
{{- if .Values.retryPolicy }}
- name: retry-policy
  downwardAPI:
    items:
      - path: retry-policy.yaml
        fieldRef:
          fieldPath: metadata.annotations['terbayar/retry-policy']
{{- end }}
{{- with .Values.paydia }}
{{- if .enabled }}
- name: paydia
  secret:
    secretName: {{ .existingSecret | quote }}
    {{- if $.optional }}
    optional: true
    {{- end }}
    defaultMode: 0440
    items:
      - key: {{ .secretKeys.privateKey | quote }}
        path: private-key.pem
{{- end }}
{{- end }}
{{- with .Values.webhooks }}
{{- if and .existingSecret .secretKeys.file }}
{{- /* All keys: the file names those with the secrets of its endpoints. */}}
- name: webhooks
  secret:
    secretName: {{ .existingSecret | quote }}
    {{- if $.optional }}
    optional: true
    {{- end }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- include "terbayar.payloadKeysVolume" . }}
{{- with .Values.archive.existingClaim }}
- name: archive
  persistentVolumeClaim:
    claimName: {{ . | quote }}
{{- end }}
{{- include "terbayar.trustedCAVolume" . }}
{{- with .Values.worker.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "terbayar.worker.volumeMounts" -}}
{{- if .Values.retryPolicy }}
- name: retry-policy
  mountPath: /etc/terbayar/retry-policy
  readOnly: true
{{- end }}
{{- if .Values.paydia.enabled }}
- name: paydia
  mountPath: /etc/terbayar/paydia
  readOnly: true
{{- end }}
{{- if and .Values.webhooks.existingSecret .Values.webhooks.secretKeys.file }}
- name: webhooks
  mountPath: /etc/terbayar/webhooks
  readOnly: true
{{- end }}
{{- include "terbayar.payloadKeysMount" . }}
{{- if .Values.archive.existingClaim }}
- name: archive
  mountPath: /var/lib/terbayar/archive
{{- end }}
{{- include "terbayar.trustedCAMount" . }}
{{- with .Values.worker.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A pod that runs "worker check" once: arguments are the root context, the component and the hook's annotations. */}}
{{- define "terbayar.worker.checkPod" -}}
{{- $root := merge (dict "optional" true) .root -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "terbayar.fullname" $root }}-{{ .component }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- /* Includes podLabels: they may disable the sidecar of a service mesh, which would never terminate. */}}
    {{- merge (dict) $root.Values.worker.podLabels (include "terbayar.labels" $root | fromYaml) | toYaml | nindent 4 }}
    # Not "worker": no Service, PodDisruptionBudget or Deployment may select this pod.
    app.kubernetes.io/component: {{ .component }}
  annotations:
    helm.sh/hook: {{ .hook }}
    # A pod that failed is kept until the next check, for kubectl describe. Helm prints its log.
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
    helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
    {{- with include "terbayar.worker.annotations" $root }}
    {{- . | trim | nindent 4 }}
    {{- end }}
spec:
  {{- include "terbayar.worker.pod" $root | nindent 2 }}
  restartPolicy: Never
  activeDeadlineSeconds: 120
  containers:
    - name: check
      args:
        - check
      {{- include "terbayar.worker.container" $root | nindent 6 }}
{{- end }}
