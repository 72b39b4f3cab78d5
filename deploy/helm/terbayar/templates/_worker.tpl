{{/*
Shared by the worker and by the pods that run "worker check": the same environment and files. In
those pods .optional is true: a pod starts without a Secret that does not exist, so that the check
fails at once and names the setting.
*/}}

{{- define "terbayar.worker.pod" -}}
serviceAccountName: {{ include "terbayar.serviceAccountName" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- range $field := list "runAsUser" "runAsGroup" "fsGroup" }}
  {{- with get ($.Values.worker.podSecurityContext | default dict) $field }}
  {{ $field }}: {{ int64 . }}
  {{- end }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.worker.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.worker.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "terbayar.worker.volumes" . }}
volumes:
  {{- . | trim | nindent 2 }}
{{- end }}
{{- end }}

{{- define "terbayar.worker.container" -}}
image: {{ include "terbayar.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop:
      - ALL
  privileged: false
  readOnlyRootFilesystem: true
terminationMessagePolicy: FallbackToLogsOnError
{{- /* A variable in env takes precedence, so extraEnvFrom cannot override a checked setting. */}}
{{- with .Values.worker.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
env:
  {{- include "terbayar.worker.env" . | trim | nindent 2 }}
{{- with include "terbayar.worker.volumeMounts" . }}
volumeMounts:
  {{- . | trim | nindent 2 }}
{{- end }}
{{- with .Values.worker.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Settings that are not secret. An empty value is omitted: the worker uses its default. */}}
{{- define "terbayar.worker.settings" -}}
REDIS_URL: {{ include "terbayar.redisURL" . | quote }}
{{- with .Values.redis }}
REDIS_DURABILITY: {{ .durability | quote }}
REDIS_WAIT_REPLICAS: {{ .waitReplicas | quote }}
REDIS_WAIT_TIMEOUT: {{ .waitTimeout | quote }}
{{- end }}
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
{{- if .Values.payloadKeys.existingSecret }}
PAYLOAD_KEYS_FILE: /etc/terbayar/payload-keys/payload-keys
{{- end }}
{{- if .Values.retryPolicy }}
RETRY_POLICY_FILE: /etc/terbayar/retry-policy/retry-policy.yaml
{{- end }}
{{- if or .Values.trustedCA.existingConfigMap .Values.trustedCA.existingSecret }}
{{- /* Read by Go: a directory of certificates in addition to the image's public ones. */}}
SSL_CERT_DIR: /etc/terbayar/trusted-ca
{{- end }}
EVENTS_STREAM: {{ .Values.eventsStream | quote }}
EVENTS_RETENTION: {{ .Values.eventsRetention | quote }}
RETENTION: {{ .Values.retention | quote }}
{{- if .Values.archive.existingClaim }}
ARCHIVE_DIR: /var/lib/terbayar/archive
{{- end }}
LEDGER_PARTITIONS: {{ .Values.ledgerPartitions | int | quote }}
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

{{- define "terbayar.secretEnv" -}}
- name: {{ .variable }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret | quote }}
      key: {{ .key | quote }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end }}

{{/*
The settings are in the pod template, and not in a ConfigMap: a pod that restarts during a bad
upgrade still has its own, and kubectl rollout undo restores them. In a value, Kubernetes reads $$
as $ and replaces $(NAME).
*/}}
{{- define "terbayar.worker.env" -}}
{{- range $name, $value := include "terbayar.worker.settings" . | fromYaml }}
- name: {{ $name }}
  value: {{ $value | replace "$" "$$" | quote }}
{{- end }}
{{- with .Values.redis }}
{{- if .existingSecret }}
{{ include "terbayar.secretEnv" (dict "optional" $.optional "variable" "REDIS_PASSWORD" "secret" .existingSecret "key" .secretKeys.password) }}
{{- if and (eq .mode "sentinel") .secretKeys.sentinelPassword }}
{{ include "terbayar.secretEnv" (dict "optional" $.optional "variable" "REDIS_SENTINEL_PASSWORD" "secret" .existingSecret "key" .secretKeys.sentinelPassword) }}
{{- end }}
{{- end }}
{{- end }}
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
{{- with .Values.payloadKeys }}
{{- if .existingSecret }}
- name: payload-keys
  secret:
    secretName: {{ .existingSecret | quote }}
    {{- if $.optional }}
    optional: true
    {{- end }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: payload-keys
{{- end }}
{{- end }}
{{- with .Values.archive.existingClaim }}
- name: archive
  persistentVolumeClaim:
    claimName: {{ . | quote }}
{{- end }}
{{- with .Values.trustedCA }}
{{- if .existingConfigMap }}
- name: trusted-ca
  configMap:
    name: {{ .existingConfigMap | quote }}
    {{- if $.optional }}
    optional: true
    {{- end }}
    items:
      - key: {{ .key | quote }}
        path: ca.crt
{{- else if .existingSecret }}
- name: trusted-ca
  secret:
    secretName: {{ .existingSecret | quote }}
    {{- if $.optional }}
    optional: true
    {{- end }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: ca.crt
{{- end }}
{{- end }}
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
{{- if .Values.payloadKeys.existingSecret }}
- name: payload-keys
  mountPath: /etc/terbayar/payload-keys
  readOnly: true
{{- end }}
{{- if .Values.archive.existingClaim }}
- name: archive
  mountPath: /var/lib/terbayar/archive
{{- end }}
{{- if or .Values.trustedCA.existingConfigMap .Values.trustedCA.existingSecret }}
- name: trusted-ca
  mountPath: /etc/terbayar/trusted-ca
  readOnly: true
{{- end }}
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
