{{- define "terbayar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 43 characters, so that the longest suffix, -worker-retry-policy, fits into 63. */}}
{{- define "terbayar.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 43 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 43 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "terbayar.worker.fullname" -}}
{{ include "terbayar.fullname" . }}-worker
{{- end }}

{{/* Labels of all objects. Those of one component add app.kubernetes.io/component. */}}
{{- define "terbayar.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "terbayar.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: terbayar
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Do not change: the selector of a Deployment is immutable (tests/selectors.golden). */}}
{{- define "terbayar.worker.selectorLabels" -}}
app.kubernetes.io/name: {{ include "terbayar.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: worker
{{- end }}

{{- define "terbayar.worker.labels" -}}
{{ include "terbayar.labels" . }}
app.kubernetes.io/component: worker
{{- end }}

{{- define "terbayar.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "terbayar.worker.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "terbayar.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/*
Converts a Go duration such as 1m30s to milliseconds. Sprig cannot parse a duration, but it can
add one to a date.
*/}}
{{- define "terbayar.milliseconds" -}}
{{- $zero := toDate "2006-01-02" "2000-01-01" -}}
{{- ((mustDateModify . $zero).Sub $zero).Milliseconds }}
{{- end }}

{{/* End of the chain of timeouts: the shutdown timeout, plus 15 s to record results and requeue tasks. */}}
{{- define "terbayar.worker.gracePeriod" -}}
{{- with .Values.worker -}}
{{- if kindIs "invalid" .terminationGracePeriodSeconds -}}
{{ add (divf (include "terbayar.milliseconds" .shutdownTimeout) 1000 | ceil | int) 15 }}
{{- else -}}
{{ int .terminationGracePeriodSeconds }}
{{- end }}
{{- end }}
{{- end }}

{{/* REDIS_URL without passwords, which come from the Secret. */}}
{{- define "terbayar.redisURL" -}}
{{- with .Values.redis -}}
{{- $hosts := join "," .addresses -}}
{{- with .username }}{{ $hosts = printf "%s@%s" (urlquery . | replace "+" "%20") $hosts }}{{ end -}}
{{- if eq .mode "sentinel" -}}
redis-sentinel://{{ $hosts }}/{{ int .database }}?master={{ urlquery .sentinel.master }}{{ with .sentinel.username }}&sentinel_username={{ urlquery . }}{{ end }}{{ if .tls.enabled }}&tls=true{{ end }}
{{- else if eq .mode "cluster" -}}
redis-cluster://{{ $hosts }}{{ if .tls.enabled }}?tls=true{{ end }}
{{- else -}}
{{ ternary "rediss" "redis" .tls.enabled }}://{{ $hosts }}/{{ int .database }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The enabled gateways, separated by spaces. Each is also the name of its submit queue, and with
-interactive that of the queue of its interactive payments.
*/}}
{{- define "terbayar.gateways" -}}
{{- $on := list }}
{{- if .Values.amdigipay.enabled }}{{ $on = append $on "amdigipay" }}{{ end }}
{{- if .Values.paydia.enabled }}{{ $on = append $on "paydia" }}{{ end }}
{{- join " " $on }}
{{- end }}

{{/* Label matchers of this release's series: by default the labels that podmonitor.yaml sets. */}}
{{- define "terbayar.metricsSelector" -}}
{{- .Values.metrics.selector | default (printf "namespace=%q, job=%q" .Release.Namespace (include "terbayar.worker.fullname" .)) }}
{{- end }}

{{- define "terbayar.egress.dns" -}}
# DNS.
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
  {{- with .Values.networkPolicy.dnsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "terbayar.egress.redis" -}}
{{- $v := .Values }}
{{- $redisPorts := $v.networkPolicy.redisPorts }}
{{- if not $redisPorts }}
{{- range $v.redis.addresses }}
{{- $redisPorts = append $redisPorts (regexFind "[0-9]+$" . | int) }}
{{- end }}
{{- if eq $v.redis.mode "sentinel" }}
{{- $redisPorts = append $redisPorts 6379 }}
{{- end }}
{{- end }}
{{- include "terbayar.egress.dns" . }}
# Redis.
- ports:
    {{- range $redisPorts | uniq }}
    - port: {{ int . }}
      protocol: TCP
    {{- end }}
  {{- with $v.networkPolicy.redisTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* The egress rules of the workers and of the pods that run "worker check". */}}
{{- define "terbayar.egress" -}}
{{- $v := .Values }}
{{- $gatewayPorts := list }}
{{- range $gateway := include "terbayar.gateways" . | splitList " " | compact }}
{{- $url := urlParse (get $v $gateway).baseUrl }}
{{- $gatewayPorts = append $gatewayPorts (regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "80" "443" (eq $url.scheme "http")) | int) }}
{{- end -}}
egress:
  {{- include "terbayar.egress.redis" . | nindent 2 }}
  {{- with $gatewayPorts | uniq }}
  # The gateways.
  - ports:
      {{- range . }}
      - port: {{ . }}
        protocol: TCP
      {{- end }}
    {{- with $v.networkPolicy.gatewayCIDRs }}
    to:
      {{- range . }}
      - ipBlock:
          cidr: {{ . | quote }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- if $v.webhooks.existingSecret }}
  # The receivers of webhooks.
  - ports:
      {{- range $v.networkPolicy.webhookPorts | default (list 443) | uniq }}
      - port: {{ int . }}
        protocol: TCP
      {{- end }}
    {{- with $v.networkPolicy.webhookTo }}
    to:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- with $v.networkPolicy.extraEgress }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
