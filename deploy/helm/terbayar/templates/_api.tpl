{{- define "terbayar.api.fullname" -}}
{{ include "terbayar.fullname" . }}-api
{{- end }}

{{/* Do not change: the selector of a Deployment is immutable (tests/selectors.golden). */}}
{{- define "terbayar.api.selectorLabels" -}}
app.kubernetes.io/name: {{ include "terbayar.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: api
{{- end }}

{{- define "terbayar.api.labels" -}}
{{ include "terbayar.labels" . }}
app.kubernetes.io/component: api
{{- end }}

{{- define "terbayar.api.serviceAccountName" -}}
{{- with .Values.api.serviceAccount }}
{{- if .create }}
{{- default (include "terbayar.api.fullname" $) .name }}
{{- else }}
{{- default "default" .name }}
{{- end }}
{{- end }}
{{- end }}

{{- define "terbayar.api.checkLabels" -}}
app.kubernetes.io/name: {{ include "terbayar.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: api-check
{{- end }}

{{/* Label matchers of the API's series: by default the labels that its PodMonitor sets. */}}
{{- define "terbayar.api.metricsSelector" -}}
{{- .Values.metrics.apiSelector | default (printf "namespace=%q, job=%q" .Release.Namespace (include "terbayar.api.fullname" .)) }}
{{- end }}

{{/* End of the chain of timeouts: delay and timeout, 8 s for batches that are cut off, and 7 s. */}}
{{- define "terbayar.api.gracePeriod" -}}
{{- with .Values.api -}}
{{- if kindIs "invalid" .terminationGracePeriodSeconds -}}
{{ add (divf (add (include "terbayar.milliseconds" .shutdownDelay) (include "terbayar.milliseconds" .shutdownTimeout)) 1000 | ceil | int) 15 }}
{{- else -}}
{{ int .terminationGracePeriodSeconds }}
{{- end }}
{{- end }}
{{- end }}

{{- define "terbayar.api.scheme" -}}
{{ ternary "https" "http" (ne .Values.api.tls.existingSecret "") }}
{{- end }}

{{- define "terbayar.api.pod" -}}
{{- include "terbayar.pod" (dict "root" . "component" .Values.api "serviceAccount" (include "terbayar.api.serviceAccountName" .) "volumes" (include "terbayar.api.volumes" .)) }}
{{- end }}

{{- define "terbayar.api.container" -}}
{{- include "terbayar.container" (dict "root" . "component" .Values.api "env" (include "terbayar.api.env" .) "volumeMounts" (include "terbayar.api.volumeMounts" .)) }}
{{- end }}

{{/* Settings of enqueue serve that are not secret. It has no credential of a gateway. */}}
{{- define "terbayar.api.settings" -}}
{{ include "terbayar.settings" . }}
{{- with .Values.paydia.merchantId }}
PAYDIA_MERCHANT_ID: {{ . | quote }}
{{- end }}
API_KEYS_FILE: /etc/terbayar/api-keys/api-keys
SERVE_HTTP_ADDR: ":8081"
{{- /* Not on the public port, which Ingress and HTTPRoute lead to. */}}
SERVE_METRICS_ADDR: ":8082"
{{- with .Values.api }}
{{- if .tls.existingSecret }}
SERVE_TLS_CERT_FILE: /etc/terbayar/api-tls/tls.crt
SERVE_TLS_KEY_FILE: /etc/terbayar/api-tls/tls.key
{{- end }}
{{- if .callbacks.existingSecret }}
CALLBACK_SECRET_FILE: /etc/terbayar/callbacks/callback-secret
{{- end }}
{{- with .rateLimit }}
SERVE_RATE_LIMIT: {{ . | quote }}
{{- end }}
{{- with .trustedProxies }}
SERVE_TRUSTED_PROXIES: {{ join "," . | quote }}
{{- end }}
SERVE_SHUTDOWN_DELAY: {{ .shutdownDelay | quote }}
SERVE_SHUTDOWN_TIMEOUT: {{ .shutdownTimeout | quote }}
LOG_LEVEL: {{ .log.level | quote }}
LOG_FORMAT: {{ .log.format | quote }}
{{- end }}
{{- end }}

{{- define "terbayar.api.env" -}}
{{- include "terbayar.plainEnv" (include "terbayar.api.settings" .) }}
{{- include "terbayar.redisEnv" . }}
{{- with .Values.api.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Whole directories, not subPath: the kubelet replaces their files when a Secret changes, and the
program reads keys and certificate again. */}}
{{- define "terbayar.api.volumes" -}}
{{- with .Values.api.keys }}
- name: api-keys
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: api-keys
{{- end }}
{{- with .Values.api.callbacks }}
{{- if .existingSecret }}
- name: callbacks
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: callback-secret
{{- end }}
{{- end }}
{{- with .Values.api.tls.existingSecret }}
- name: api-tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
    items:
      - key: tls.crt
        path: tls.crt
      - key: tls.key
        path: tls.key
{{- end }}
{{- include "terbayar.payloadKeysVolume" . }}
{{- with .Values.archive.existingClaim }}
- name: archive
  persistentVolumeClaim:
    claimName: {{ . | quote }}
    readOnly: true
{{- end }}
{{- include "terbayar.trustedCAVolume" . }}
{{- end }}

{{- define "terbayar.api.volumeMounts" -}}
- name: api-keys
  mountPath: /etc/terbayar/api-keys
  readOnly: true
{{- if .Values.api.callbacks.existingSecret }}
- name: callbacks
  mountPath: /etc/terbayar/callbacks
  readOnly: true
{{- end }}
{{- if .Values.api.tls.existingSecret }}
- name: api-tls
  mountPath: /etc/terbayar/api-tls
  readOnly: true
{{- end }}
{{- include "terbayar.payloadKeysMount" . }}
{{- if .Values.archive.existingClaim }}
- name: archive
  mountPath: /var/lib/terbayar/archive
  readOnly: true
{{- end }}
{{- include "terbayar.trustedCAMount" . }}
{{- end }}

{{/*
The paths that an Ingress or HTTPRoute exposes, as YAML: the API's, those of the gateways'
callbacks, or both. The argument is the list of both kinds. /metrics and the workers' /monitoring/ and
/payments/ are never among them.
*/}}
{{- define "terbayar.api.paths" -}}
{{- if has "api" . }}
- {path: /v1, exact: false}
- {path: /openapi.json, exact: true}
- {path: /docs, exact: false}
{{- end }}
{{- if has "callbacks" . }}
- {path: /callbacks, exact: false}
{{- end }}
{{- end }}

{{/* "true" if two host names, of which each may begin with *., have a name in common. */}}
{{- define "terbayar.sameHost" -}}
{{- $a := index . 0 }}
{{- $b := index . 1 }}
{{- if or (eq $a $b)
  (and (hasPrefix "*." $a) (hasSuffix (trimPrefix "*" $a) $b))
  (and (hasPrefix "*." $b) (hasSuffix (trimPrefix "*" $b) $a)) }}true{{ end }}
{{- end }}
