{{/*
Fails with every contradiction between values, each with the name of the value to change.
values.schema.json has checked each value alone.
*/}}
{{- define "terbayar.check" -}}
{{- $wrong := list }}
{{- $v := .Values }}

{{- if not $v.image.repository }}
{{- $wrong = append $wrong "image.repository is missing: there is no public image; build one with scripts/image and push it to your registry" }}
{{- end }}

{{- /* helm accepts release names that are invalid as the name of a Service. */}}
{{- $name := include "terbayar.worker.fullname" . }}
{{- if not (regexMatch "^[a-z][a-z0-9-]*$" $name) }}
{{- $wrong = append $wrong (printf "fullnameOverride is missing: %s, from the release name, is not a valid name of a Service (a letter, then letters, digits and -)" $name) }}
{{- end }}

{{- /* Redis */}}
{{- with $v.redis }}
{{- if not .addresses }}
{{- $wrong = append $wrong "redis.addresses is missing: host:port of your Redis (the chart does not install one)" }}
{{- else if and (eq .mode "standalone") (gt (len .addresses) 1) }}
{{- $wrong = append $wrong "redis.addresses has several addresses, but redis.mode is standalone: set it to sentinel or cluster" }}
{{- end }}
{{- if and (eq .mode "sentinel") (not .sentinel.master) }}
{{- $wrong = append $wrong "redis.sentinel.master is missing: the name of the primary in the sentinels' configuration" }}
{{- end }}
{{- if and (eq .mode "cluster") (ne (int .database) 0) }}
{{- $wrong = append $wrong "redis.database must be 0: a Redis Cluster has no other database" }}
{{- end }}
{{- if and (eq .durability "replicas") (eq (toString .waitReplicas) "0") }}
{{- $wrong = append $wrong "redis.waitReplicas is 0, but redis.durability is replicas: at least one replica must acknowledge every write" }}
{{- end }}
{{- if and .secretKeys.sentinelPassword (not .existingSecret) }}
{{- $wrong = append $wrong "redis.existingSecret is missing, but redis.secretKeys.sentinelPassword is set" }}
{{- end }}
{{- /* The scripts of the ledger work on keys of one slot. */}}
{{- if and (eq .mode "cluster") (ne $v.eventsStream "terbayar:events") (not (contains "{terbayar:events}" $v.eventsStream)) }}
{{- $wrong = append $wrong (printf "eventsStream: %q is in another slot of the Redis Cluster than the ledger: its name must contain {terbayar:events}" $v.eventsStream) }}
{{- end }}
{{- end }}
{{- if and $v.trustedCA.existingConfigMap $v.trustedCA.existingSecret }}
{{- $wrong = append $wrong "trustedCA.existingConfigMap and trustedCA.existingSecret are both set: set only one" }}
{{- end }}

{{- /* Gateways */}}
{{- with $v.amdigipay }}
{{- if .enabled }}
{{- if not .username }}
{{- $wrong = append $wrong "amdigipay.username is missing, but amdigipay.enabled is true" }}
{{- end }}
{{- if not .existingSecret }}
{{- $wrong = append $wrong (printf "amdigipay.existingSecret is missing: the name of a Secret with the key %s" .secretKeys.password) }}
{{- end }}
{{- if and (eq .signatureScheme "hmac-sha256") (not .signatureFields) }}
{{- $wrong = append $wrong "amdigipay.signatureFields is empty, but amdigipay.signatureScheme is hmac-sha256" }}
{{- end }}
{{- end }}
{{- end }}
{{- with $v.paydia }}
{{- if .enabled }}
{{- if not .clientId }}
{{- $wrong = append $wrong "paydia.clientId is missing, but paydia.enabled is true" }}
{{- end }}
{{- if not .existingSecret }}
{{- $wrong = append $wrong (printf "paydia.existingSecret is missing: the name of a Secret with the keys %s and %s" .secretKeys.clientSecret .secretKeys.privateKey) }}
{{- end }}
{{- if not $v.payloadKeys.existingSecret }}
{{- $wrong = append $wrong (printf "payloadKeys.existingSecret is missing: the name of a Secret with the key %s; without it no payment to Paydia can be sent" $v.payloadKeys.key) }}
{{- end }}
{{- end }}
{{- end }}

{{- with $v.paydia.queueTTL }}
{{- if and (ne . "off") (lt (include "terbayar.milliseconds" . | int) 1) }}
{{- $wrong = append $wrong (printf "paydia.queueTTL: %s is less than 1ms" .) }}
{{- end }}
{{- end }}

{{- /* The chain of timeouts. internal/config and internal/worker check it again when a worker starts. */}}
{{- with $v.worker }}
{{- $gateway := include "terbayar.milliseconds" .gatewayTimeout | int }}
{{- $shutdown := include "terbayar.milliseconds" .shutdownTimeout | int }}
{{- $wait := 2500 }}
{{- if ne $v.redis.waitTimeout "auto" }}
{{- $wait = include "terbayar.milliseconds" $v.redis.waitTimeout | int }}
{{- if or (lt $wait 1) (ge $wait 3000) }}
{{- $wrong = append $wrong (printf "redis.waitTimeout: %s is not between 1ms and 3s, the timeout of an answer from Redis" $v.redis.waitTimeout) }}
{{- end }}
{{- end }}
{{- $send := add $wait 5000 }}
{{- $lease := add $send $gateway 3000 }}
{{- if lt $gateway 1 }}
{{- $wrong = append $wrong (printf "worker.gatewayTimeout: %s is less than 1ms" .gatewayTimeout) }}
{{- end }}
{{- if ge $gateway $shutdown }}
{{- $wrong = append $wrong (printf "worker.gatewayTimeout (%s) must be less than worker.shutdownTimeout (%s): a request in flight at shutdown could not finish" .gatewayTimeout .shutdownTimeout) }}
{{- end }}
{{- if ge (add $gateway $send $lease) 300000 }}
{{- $wrong = append $wrong (printf "worker.gatewayTimeout: %s is too long: login, request and record can take %ds, and the timeout of a task is 5m" .gatewayTimeout (div (add $gateway $send $lease) 1000)) }}
{{- end }}
{{- $grace := include "terbayar.worker.gracePeriod" $ | int }}
{{- if le (mul $grace 1000) $shutdown }}
{{- $wrong = append $wrong (printf "worker.shutdownTimeout (%s) must be less than worker.terminationGracePeriodSeconds (%d): the worker would be killed during its graceful shutdown" .shutdownTimeout $grace) }}
{{- end }}
{{- end }}

{{- /* A variable in env takes precedence over one from the ConfigMap: extraEnv must not bypass a
check, and must not hold a password in plain values. */}}
{{- $seen := list }}
{{- range $v.worker.extraEnv }}
{{- if regexMatch "^(REDIS|AMDIGIPAY|PAYDIA|PAYLOAD|RETRY|EVENTS|LEDGER|WORKER|GATEWAY|STATUS|EXPIRY|LATE|MONITORING|LOG)_" .name }}
{{- $wrong = append $wrong (printf "worker.extraEnv: %s is a setting of the worker: use its value in this chart" .name) }}
{{- else if and (eq .name "SSL_CERT_DIR") (or $v.trustedCA.existingConfigMap $v.trustedCA.existingSecret) }}
{{- $wrong = append $wrong "worker.extraEnv: SSL_CERT_DIR is already set by trustedCA" }}
{{- else if has .name $seen }}
{{- $wrong = append $wrong (printf "worker.extraEnv: %s is set twice" .name) }}
{{- end }}
{{- $seen = append $seen .name }}
{{- end }}

{{- /* Scaling */}}
{{- if and $v.autoscaling.enabled $v.keda.enabled }}
{{- $wrong = append $wrong "autoscaling.enabled and keda.enabled are both true: enable only one autoscaler" }}
{{- end }}
{{- range $name := list "autoscaling" "keda" }}
{{- with get $v $name }}
{{- if and .enabled (lt (int .maxReplicas) (int .minReplicas)) }}
{{- $wrong = append $wrong (printf "%s.maxReplicas (%d) is less than %s.minReplicas (%d)" $name (int .maxReplicas) $name (int .minReplicas)) }}
{{- end }}
{{- end }}
{{- end }}
{{- with $v.autoscaling }}
{{- if and .enabled (not (($v.worker.resources).requests).cpu) }}
{{- $wrong = append $wrong "worker.resources.requests.cpu is missing: the target of autoscaling is a percentage of it" }}
{{- end }}
{{- end }}
{{- with $v.keda }}
{{- if .enabled }}
{{- if not (include "terbayar.gateways" $) }}
{{- $wrong = append $wrong "keda.enabled is true, but neither amdigipay nor paydia is enabled: there is no queue to scale on" }}
{{- end }}
{{- if and (eq .trigger "prometheus") (not .prometheus.serverAddress) }}
{{- $wrong = append $wrong "keda.prometheus.serverAddress is missing, but keda.trigger is prometheus" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Ingress */}}
{{- with $v.ingress }}
{{- if .enabled }}
{{- if not $v.monitoring.existingSecret }}
{{- $wrong = append $wrong "monitoring.existingSecret is missing: without users the web UI rejects every request through the Ingress" }}
{{- end }}
{{- if not .host }}
{{- $wrong = append $wrong "ingress.host is missing, but ingress.enabled is true" }}
{{- end }}
{{- if not .tlsSecret }}
{{- $wrong = append $wrong "ingress.tlsSecret is missing: passwords would be sent unencrypted" }}
{{- end }}
{{- end }}
{{- end }}

{{- with $v.metrics.podMonitor }}
{{- if gt (include "terbayar.milliseconds" .scrapeTimeout | int) (include "terbayar.milliseconds" .interval | int) }}
{{- $wrong = append $wrong (printf "metrics.podMonitor.scrapeTimeout (%s) must not be longer than metrics.podMonitor.interval (%s): Prometheus rejects it" .scrapeTimeout .interval) }}
{{- end }}
{{- end }}

{{- /* An enabled object whose kind the cluster does not have is an error, not silently omitted. */}}
{{- range $key, $enabled := dict
  "keda.sh/v1alpha1/ScaledObject keda.enabled" $v.keda.enabled
  "monitoring.coreos.com/v1/PodMonitor metrics.podMonitor.enabled" $v.metrics.podMonitor.enabled
  "monitoring.coreos.com/v1/PrometheusRule metrics.prometheusRule.enabled" $v.metrics.prometheusRule.enabled
}}
{{- $kind := splitList " " $key | first }}
{{- if and $enabled (not ($.Capabilities.APIVersions.Has $kind)) }}
{{- $wrong = append $wrong (printf "%s is true, but the cluster has no %s: install its operator first (helm template: --api-versions %s)" (splitList " " $key | last) $kind $kind) }}
{{- end }}
{{- end }}

{{- if $wrong }}
{{- fail (printf "\n\ninvalid values:\n- %s\n" (join "\n- " $wrong)) }}
{{- end }}
{{- end }}
