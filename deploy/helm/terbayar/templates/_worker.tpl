{{/* Shared by the worker and by helm test: both run the worker program with the same environment. */}}

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
envFrom:
  {{- /* The last source takes precedence, so extraEnvFrom cannot override a checked setting. */}}
  {{- with .Values.worker.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  - configMapRef:
      name: {{ include "terbayar.worker.fullname" . }}
{{- with include "terbayar.worker.env" . }}
env:
  {{- . | trim | nindent 2 }}
{{- end }}
{{- with include "terbayar.worker.volumeMounts" . }}
volumeMounts:
  {{- . | trim | nindent 2 }}
{{- end }}
{{- with .Values.worker.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Settings that are not secret, for the ConfigMap. An empty value is omitted: the worker uses its default. */}}
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
{{- end }}

{{- define "terbayar.worker.env" -}}
{{- with .Values.redis }}
{{- if .existingSecret }}
{{ include "terbayar.secretEnv" (dict "variable" "REDIS_PASSWORD" "secret" .existingSecret "key" .secretKeys.password) }}
{{- if and (eq .mode "sentinel") .secretKeys.sentinelPassword }}
{{ include "terbayar.secretEnv" (dict "variable" "REDIS_SENTINEL_PASSWORD" "secret" .existingSecret "key" .secretKeys.sentinelPassword) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.amdigipay }}
{{- if .enabled }}
{{ include "terbayar.secretEnv" (dict "variable" "AMDIGIPAY_PASSWORD" "secret" .existingSecret "key" .secretKeys.password) }}
{{- if eq .signatureScheme "hmac-sha256" }}
{{ include "terbayar.secretEnv" (dict "variable" "AMDIGIPAY_SIGNATURE_KEY" "secret" .existingSecret "key" .secretKeys.signatureKey) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.paydia }}
{{- if .enabled }}
{{ include "terbayar.secretEnv" (dict "variable" "PAYDIA_CLIENT_SECRET" "secret" .existingSecret "key" .secretKeys.clientSecret) }}
{{- end }}
{{- end }}
{{- with .Values.monitoring }}
{{- if .existingSecret }}
{{ include "terbayar.secretEnv" (dict "variable" "MONITORING_USERS" "secret" .existingSecret "key" .key) }}
{{- end }}
{{- end }}
{{- with .Values.worker.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Secrets and ConfigMaps that are mounted as files. Mode 0440; the group is fsGroup. */}}
{{- define "terbayar.worker.volumes" -}}
{{- if .Values.retryPolicy }}
- name: retry-policy
  configMap:
    name: {{ include "terbayar.worker.fullname" . }}-retry-policy
{{- end }}
{{- with .Values.paydia }}
{{- if .enabled }}
- name: paydia
  secret:
    secretName: {{ .existingSecret | quote }}
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
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: payload-keys
{{- end }}
{{- end }}
{{- with .Values.trustedCA }}
{{- if .existingConfigMap }}
- name: trusted-ca
  configMap:
    name: {{ .existingConfigMap | quote }}
    items:
      - key: {{ .key | quote }}
        path: ca.crt
{{- else if .existingSecret }}
- name: trusted-ca
  secret:
    secretName: {{ .existingSecret | quote }}
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
{{- if or .Values.trustedCA.existingConfigMap .Values.trustedCA.existingSecret }}
- name: trusted-ca
  mountPath: /etc/terbayar/trusted-ca
  readOnly: true
{{- end }}
{{- with .Values.worker.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
