{{/* References to the Secrets and ConfigMaps that KEDA's Redis triggers read. */}}
{{- define "terbayar.keda.secretRefs" -}}
{{- $redis := .Values.redis }}
{{- with $redis.existingSecret }}
- parameter: password
  name: {{ . | quote }}
  key: {{ $redis.secretKeys.password | quote }}
{{- if and (eq $redis.mode "sentinel") $redis.secretKeys.sentinelPassword }}
- parameter: sentinelPassword
  name: {{ . | quote }}
  key: {{ $redis.secretKeys.sentinelPassword | quote }}
{{- end }}
{{- end }}
{{- if and $redis.tls.enabled .Values.trustedCA.existingSecret }}
- parameter: ca
  name: {{ .Values.trustedCA.existingSecret | quote }}
  key: {{ .Values.trustedCA.key | quote }}
{{- end }}
{{- end }}

{{- define "terbayar.keda.configMapRefs" -}}
{{- if and .Values.redis.tls.enabled .Values.trustedCA.existingConfigMap }}
- parameter: ca
  name: {{ .Values.trustedCA.existingConfigMap | quote }}
  key: {{ .Values.trustedCA.key | quote }}
{{- end }}
{{- end }}

{{- define "terbayar.keda.hasAuthentication" -}}
{{- if and .Values.keda.enabled (eq .Values.keda.trigger "redis") (or (include "terbayar.keda.secretRefs" .) (include "terbayar.keda.configMapRefs" .)) }}true{{ end }}
{{- end }}
