{{/*
Shared by the workers and the API. In the pods that run a check, .optional of the root context is
true: a pod starts without a Secret that does not exist, so that the check fails at once and names
the setting.
*/}}

{{/* Arguments: root context, the values of the component, the name of its ServiceAccount, its volumes. */}}
{{- define "terbayar.pod" -}}
serviceAccountName: {{ .serviceAccount | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- $ids := .component.podSecurityContext | default dict }}
  {{- range $field := list "runAsUser" "runAsGroup" "fsGroup" }}
  {{- with get $ids $field }}
  {{ $field }}: {{ int64 . }}
  {{- end }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .component.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .component.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .volumes }}
volumes:
  {{- . | trim | nindent 2 }}
{{- end }}
{{- end }}

{{/* Arguments: root context, the values of the component, its environment, its volume mounts. */}}
{{- define "terbayar.container" -}}
image: {{ include "terbayar.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop:
      - ALL
  privileged: false
  readOnlyRootFilesystem: true
terminationMessagePolicy: FallbackToLogsOnError
{{- /* A variable in env takes precedence, so extraEnvFrom cannot override a checked setting. */}}
{{- with .component.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .env }}
env:
  {{- . | trim | nindent 2 }}
{{- end }}
{{- with .volumeMounts }}
volumeMounts:
  {{- . | trim | nindent 2 }}
{{- end }}
{{- with .component.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Fields of the pod that only a Deployment has. Arguments: the values of the component, its selector labels. */}}
{{- define "terbayar.scheduling" -}}
{{- with .component.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .component.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $selector := .selectorLabels }}
{{- with .component.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $constraint := deepCopy . }}
  {{- if not .labelSelector }}
  {{- $_ := set $constraint "labelSelector" (dict "matchLabels" ($selector | fromYaml)) }}
  {{- /* Count only pods of the same ReplicaSet: a rollout stops the others. */}}
  {{- if not .matchLabelKeys }}
  {{- $_ := set $constraint "matchLabelKeys" (list "pod-template-hash") }}
  {{- end }}
  {{- end }}
  {{- toYaml (list $constraint) | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Settings of every program that are not secret. */}}
{{- define "terbayar.settings" -}}
REDIS_URL: {{ include "terbayar.redisURL" . | quote }}
{{- with .Values.redis }}
REDIS_DURABILITY: {{ .durability | quote }}
REDIS_WAIT_REPLICAS: {{ .waitReplicas | quote }}
REDIS_WAIT_TIMEOUT: {{ .waitTimeout | quote }}
{{- end }}
{{- if .Values.payloadKeys.existingSecret }}
PAYLOAD_KEYS_FILE: /etc/terbayar/payload-keys/payload-keys
{{- end }}
{{- if or .Values.trustedCA.existingConfigMap .Values.trustedCA.existingSecret }}
{{- /* Read by Go: a directory of certificates in addition to the image's public ones. */}}
SSL_CERT_DIR: /etc/terbayar/trusted-ca
{{- end }}
EVENTS_STREAM: {{ .Values.eventsStream | quote }}
{{- if .Values.archive.existingClaim }}
ARCHIVE_DIR: /var/lib/terbayar/archive
{{- end }}
LEDGER_PARTITIONS: {{ .Values.ledgerPartitions | int | quote }}
{{- end }}

{{/*
Settings, as YAML, as environment variables. They are in the pod template, and not in a ConfigMap: a
pod that restarts during a bad upgrade still has its own, and kubectl rollout undo restores them. In
a value, Kubernetes reads $$ as $ and replaces $(NAME).
*/}}
{{- define "terbayar.plainEnv" }}
{{- range $name, $value := . | fromYaml }}
- name: {{ $name }}
  value: {{ $value | replace "$" "$$" | quote }}
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

{{- define "terbayar.redisEnv" }}
{{- with .Values.redis }}
{{- if .existingSecret }}
{{ include "terbayar.secretEnv" (dict "optional" $.optional "variable" "REDIS_PASSWORD" "secret" .existingSecret "key" .secretKeys.password) }}
{{- if and (eq .mode "sentinel") .secretKeys.sentinelPassword }}
{{ include "terbayar.secretEnv" (dict "optional" $.optional "variable" "REDIS_SENTINEL_PASSWORD" "secret" .existingSecret "key" .secretKeys.sentinelPassword) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "terbayar.payloadKeysVolume" }}
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
{{- end }}

{{- define "terbayar.trustedCAVolume" }}
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
{{- end }}

{{- define "terbayar.payloadKeysMount" }}
{{- if .Values.payloadKeys.existingSecret }}
- name: payload-keys
  mountPath: /etc/terbayar/payload-keys
  readOnly: true
{{- end }}
{{- end }}

{{- define "terbayar.trustedCAMount" }}
{{- if or .Values.trustedCA.existingConfigMap .Values.trustedCA.existingSecret }}
- name: trusted-ca
  mountPath: /etc/terbayar/trusted-ca
  readOnly: true
{{- end }}
{{- end }}
