{{/*
Fails with every contradiction between values, each with the name of the value to change.
values.schema.json has checked each value alone. The worker checks the same at start: a test in
deploy/helm/typed compares the two.
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
{{- range $address := .addresses }}
{{- if include "terbayar.check.port" $address }}
{{- $wrong = append $wrong (printf "redis.addresses: %s has no port from 1 to 65535" $address) }}
{{- end }}
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
{{- range $gateway := list "amdigipay" "paydia" }}
{{- $url := (get $v $gateway).baseUrl }}
{{- if include "terbayar.check.port" (regexFind "^https?://[^/]+" $url) }}
{{- $wrong = append $wrong (printf "%s.baseUrl: the port of %s is not from 1 to 65535" $gateway $url) }}
{{- end }}
{{- end }}
{{- with $v.amdigipay }}
{{- $ids := list }}
{{- range splitList "," .statusMap }}
{{- $ids = append $ids (splitList "=" . | first | int64) }}
{{- end }}
{{- if ne (len $ids) (uniq $ids | len) }}
{{- $wrong = append $wrong (printf "amdigipay.statusMap: %s contains a status id twice" .statusMap) }}
{{- end }}
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

{{- /* Webhooks */}}
{{- with $v.webhooks }}
{{- if not .existingSecret }}
{{- if .allow }}
{{- $wrong = append $wrong "webhooks.existingSecret is missing, but webhooks.allow is set" }}
{{- end }}
{{- if .secretKeys.file }}
{{- $wrong = append $wrong "webhooks.existingSecret is missing, but webhooks.secretKeys.file is set" }}
{{- end }}
{{- end }}
{{- range splitList "," .schedule }}
{{- $pause := include "terbayar.milliseconds" . | int64 }}
{{- if or (lt $pause 1) (gt $pause 604800000) }}
{{- $wrong = append $wrong (printf "webhooks.schedule: %s is not from 1ms to 168h" .) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Shortest durations, in milliseconds. The worker accepts 0 for the last two. */}}
{{- range list
  (list "paydia.queueTTL" $v.paydia.queueTTL 1)
  (list "worker.gatewayTimeout" $v.worker.gatewayTimeout 1)
  (list "worker.shutdownTimeout" $v.worker.shutdownTimeout 1)
  (list "worker.breakerPause" $v.worker.breakerPause 1)
  (list "worker.statusPollInterval" $v.worker.statusPollInterval 100)
  (list "worker.statusFullScanInterval" $v.worker.statusFullScanInterval 1000)
  (list "worker.expiryGrace" $v.worker.expiryGrace 0)
  (list "worker.latePaymentWindow" $v.worker.latePaymentWindow 0)
  (list "api.shutdownDelay" $v.api.shutdownDelay 1000)
  (list "api.shutdownTimeout" $v.api.shutdownTimeout 1)
}}
{{- if and (ne (index . 1) "off") (lt (include "terbayar.milliseconds" (index . 1) | int64) (index . 2 | int64)) }}
{{- $wrong = append $wrong (printf "%s: %s is less than %dms" (index . 0) (index . 1) (index . 2)) }}
{{- end }}
{{- end }}
{{- range $name := list "eventsRetention" "retention" }}
{{- $keep := get $v $name }}
{{- if hasSuffix "d" $keep }}
{{- if gt (trimSuffix "d" $keep | int64) 65535 }}
{{- $wrong = append $wrong (printf "%s: %s is more than 65535d" $name $keep) }}
{{- end }}
{{- else if and (ne $keep "never") (lt (include "terbayar.milliseconds" $keep | int64) 1000) }}
{{- $wrong = append $wrong (printf "%s: %s is less than 1s" $name $keep) }}
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
{{- if ge $gateway $shutdown }}
{{- $wrong = append $wrong (printf "worker.gatewayTimeout (%s) must be less than worker.shutdownTimeout (%s): a request in flight at shutdown could not finish" .gatewayTimeout .shutdownTimeout) }}
{{- end }}
{{- if ge (add $gateway $send $lease) 300000 }}
{{- $wrong = append $wrong (printf "worker.gatewayTimeout: %s is too long: login, request and record can take %ds, and the timeout of a task is 5m" .gatewayTimeout (div (add $gateway $send $lease) 1000)) }}
{{- end }}
{{- range $name, $policy := ($v.retryPolicy).gateways }}
{{- with $policy.verify }}
{{- $settle := .settle | default "2m" }}
{{- if and (eq (.then | default "review") "retry") (lt (include "terbayar.milliseconds" $settle | int) (mul 2 $gateway | int)) }}
{{- $wrong = append $wrong (printf "retryPolicy.gateways.%s.verify.settle: %s is too short for then: retry: at least twice worker.gatewayTimeout (%s)" $name $settle $v.worker.gatewayTimeout) }}
{{- end }}
{{- end }}
{{- end }}
{{- $grace := include "terbayar.worker.gracePeriod" $ | int }}
{{- if le (mul $grace 1000) $shutdown }}
{{- $wrong = append $wrong (printf "worker.shutdownTimeout (%s) must be less than worker.terminationGracePeriodSeconds (%d): the worker would be killed during its graceful shutdown" .shutdownTimeout $grace) }}
{{- end }}
{{- with $v.api }}
{{- $delay := include "terbayar.milliseconds" .shutdownDelay | int }}
{{- $timeout := include "terbayar.milliseconds" .shutdownTimeout | int }}
{{- if le $timeout (int $send) }}
{{- $wrong = append $wrong (printf "api.shutdownTimeout: %s is too short: a payment that is being recorded at shutdown needs more than %dms for its answer (redis.waitTimeout + 5s)" .shutdownTimeout $send) }}
{{- end }}
{{- $grace := include "terbayar.api.gracePeriod" $ | int }}
{{- if le (mul $grace 1000) (add $delay $timeout 8000) }}
{{- $wrong = append $wrong (printf "api.shutdownDelay (%s) + api.shutdownTimeout (%s) + 8s for batches that are cut off must be less than api.terminationGracePeriodSeconds (%d): the API would be killed during its graceful shutdown" .shutdownDelay .shutdownTimeout $grace) }}
{{- end }}
{{- end }}
{{- end }}

{{- $wrong = concat $wrong (include "terbayar.check.api" . | fromYamlArray) }}

{{- $wrong = concat $wrong (include "terbayar.check.policy" . | fromYamlArray) }}

{{- /* Labels and annotations that the chart sets itself. JSON Schema has propertyNames for this, but
Helm then names the wrong value in its error. */}}
{{- range list
  (list "commonLabels" $v.commonLabels "label")
  (list "worker.podLabels" $v.worker.podLabels "label")
  (list "api.podLabels" $v.api.podLabels "label")
  (list "metrics.podMonitor.labels" $v.metrics.podMonitor.labels "label")
  (list "metrics.prometheusRule.labels" $v.metrics.prometheusRule.labels "label")
  (list "metrics.dashboard.labels" $v.metrics.dashboard.labels "label")
  (list "metrics.prometheusRule.alertLabels" $v.metrics.prometheusRule.alertLabels "alert")
  (list "worker.podAnnotations" $v.worker.podAnnotations "annotation")
  (list "api.podAnnotations" $v.api.podAnnotations "annotation")
}}
{{- $own := get (dict
  "label" `^(app\.kubernetes\.io/(name|instance|component|version|managed-by|part-of)|helm\.sh/chart)$`
  "alert" `^severity$`
  "annotation" `^(terbayar/retry-policy|kubectl\.kubernetes\.io/default-container|helm\.sh/.*)$`
) (index . 2) }}
{{- $where := index . 0 }}
{{- range $name, $_ := index . 1 }}
{{- if regexMatch $own $name }}
{{- $wrong = append $wrong (printf "%s: %s is set by the chart" $where $name) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A later variable in env takes precedence: extraEnv must not bypass a check, and must not hold a
password in plain values. */}}
{{- range $component := list "worker" "api" }}
{{- $seen := list }}
{{- range (get $v $component).extraEnv }}
{{- if regexMatch "^(REDIS|AMDIGIPAY|PAYDIA|PAYLOAD|RETRY|EVENTS|LEDGER|ARCHIVE|WORKER|GATEWAY|STATUS|EXPIRY|LATE|MONITORING|LOG|SERVE|API|CALLBACK|WEBHOOK|WEBHOOKS)_|^RETENTION$" .name }}
{{- $wrong = append $wrong (printf "%s.extraEnv: %s is a setting of the programs: use its value in this chart" $component .name) }}
{{- else if and (eq .name "SSL_CERT_DIR") (or $v.trustedCA.existingConfigMap $v.trustedCA.existingSecret) }}
{{- $wrong = append $wrong (printf "%s.extraEnv: SSL_CERT_DIR is already set by trustedCA" $component) }}
{{- else if has .name $seen }}
{{- $wrong = append $wrong (printf "%s.extraEnv: %s is set twice" $component .name) }}
{{- end }}
{{- $seen = append $seen .name }}
{{- end }}
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
  "gateway.networking.k8s.io/v1/HTTPRoute api.httpRoute.enabled" (and $v.api.enabled $v.api.httpRoute.enabled)
}}
{{- $kind := splitList " " $key | first }}
{{- if and $enabled (not ($.Capabilities.APIVersions.Has $kind)) }}
{{- $wrong = append $wrong (printf "%s is true, but the cluster has no %s: install it first (helm template: --api-versions %s)" (splitList " " $key | last) $kind $kind) }}
{{- end }}
{{- end }}

{{- if $wrong }}
{{- fail (printf "\n\ninvalid values:\n- %s\n" (join "\n- " $wrong)) }}
{{- end }}
{{- end }}

{{/* A list of what is wrong with the values of the API. */}}
{{- define "terbayar.check.api" -}}
{{- $wrong := list }}
{{- $v := .Values }}
{{- with $v.api }}
{{- if not .enabled }}
{{- range $name := list "ingress" "httpRoute" "autoscaling" }}
{{- if (get $v.api $name).enabled }}
{{- $wrong = append $wrong (printf "api.%s.enabled is true, but api.enabled is false" $name) }}
{{- end }}
{{- end }}
{{- else }}
{{- if not .keys.existingSecret }}
{{- $wrong = append $wrong (printf "api.keys.existingSecret is missing: the name of a Secret with the key %s, which has the API keys; the API does not start without one" .keys.key) }}
{{- end }}
{{- if and $v.networkPolicy.enabled (not .networkPolicy.ingressFrom) }}
{{- $wrong = append $wrong "api.networkPolicy.ingressFrom is missing: who may connect to the API, e.g. the namespace of the Ingress controller; or disable networkPolicy.enabled" }}
{{- end }}
{{- range $name := list "ingress" "httpRoute" }}
{{- with get $v.api $name }}
{{- if and .enabled (has "callbacks" .paths) (not $v.api.callbacks.existingSecret) }}
{{- $wrong = append $wrong (printf "api.callbacks.existingSecret is missing, but api.%s.paths has callbacks: without their secret they are off" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- /* The web UI's host and the API's hosts. */}}
{{- $hosts := list }}
{{- if .ingress.enabled }}
{{- if not .ingress.host }}
{{- $wrong = append $wrong "api.ingress.host is missing, but api.ingress.enabled is true" }}
{{- else }}
{{- $hosts = append $hosts (list "api.ingress.host" .ingress.host) }}
{{- end }}
{{- if not .ingress.tlsSecret }}
{{- $wrong = append $wrong "api.ingress.tlsSecret is missing: API keys would be sent unencrypted" }}
{{- end }}
{{- end }}
{{- if .httpRoute.enabled }}
{{- if not .httpRoute.parentRefs }}
{{- $wrong = append $wrong "api.httpRoute.parentRefs is missing: the Gateways of the HTTPRoute" }}
{{- end }}
{{- if not .httpRoute.hostnames }}
{{- $wrong = append $wrong "api.httpRoute.hostnames is missing, but api.httpRoute.enabled is true" }}
{{- end }}
{{- range .httpRoute.hostnames }}
{{- $hosts = append $hosts (list "api.httpRoute.hostnames" .) }}
{{- end }}
{{- with .httpRoute.requestTimeout }}
{{- $timeout := include "terbayar.milliseconds" . | int64 }}
{{- if and (ne $timeout 0) (le $timeout 60000) }}
{{- $wrong = append $wrong (printf "api.httpRoute.requestTimeout: %s is not longer than 60s, for which a request may wait for a change; 0s: no timeout" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $v.ingress.enabled }}
{{- range $hosts }}
{{- if include "terbayar.sameHost" (list (index . 1) $v.ingress.host) }}
{{- $wrong = append $wrong (printf "%s: %s is also ingress.host (%s): the web UI must not be on the host of the API" (index . 0) (index . 1) $v.ingress.host) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .autoscaling }}
{{- if and .enabled (lt (int .maxReplicas) (int .minReplicas)) }}
{{- $wrong = append $wrong (printf "api.autoscaling.maxReplicas (%d) is less than api.autoscaling.minReplicas (%d)" (int .maxReplicas) (int .minReplicas)) }}
{{- end }}
{{- if and .enabled (not (($v.api.resources).requests).cpu) }}
{{- $wrong = append $wrong "api.resources.requests.cpu is missing: the target of api.autoscaling is a percentage of it" }}
{{- end }}
{{- end }}
{{- with $v.metrics }}
{{- if and .prometheusRule.enabled .selector (not .apiSelector) }}
{{- $wrong = append $wrong "metrics.apiSelector is missing, but metrics.selector is set: alerts would not find the series of the API" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $wrong }}
{{- end }}

{{/* Prints "wrong" if an address ends in a port that does not exist. */}}
{{- define "terbayar.check.port" -}}
{{- with regexFind ":[0-9]+$" . | trimPrefix ":" }}
{{- if or (lt (int64 .) 1) (gt (int64 .) 65535) }}wrong{{ end }}
{{- end }}
{{- end }}

{{/*
The codes for which an action is safe, as the worker has them (internal/retrypolicy/class.go): no
policy may cause a duplicate charge or lose a payment. verify and review are safe for every code.
*/}}
{{- define "terbayar.safeCodes" -}}
amdigipay:
  accept: ^http:200$
  retry: ^(net:unsent|error:true|http:(40[01345]|413|415|422|429))$
  refresh_token: ^(net:unsent|error:true|http:(40[01345]|413|415|422|429))$
  reject: ^(error:true|http:(400|413|415|422))$
paydia:
  accept: ^200..00$
  retry: ^(net:unsent|token:undecryptable|http:(40[01345]|413|415|422|429)|400..0[012]|401....|403..([01].|2[0-3])|404..(0[02-9]|1[0-35-79])|405..0[01]|429....)$
  refresh_token: ^(net:unsent|token:undecryptable|http:(40[01345]|413|415|422|429)|400..0[012]|401....|403..([01].|2[0-3])|404..(0[02-9]|1[0-35-79])|405..0[01]|429....)$
  reject: ^(http:(400|413|415|422)|400..0[012]|401..0[24]|403..([01].|2[0-3])|404..(0[02-9]|1[0-35-79])|405..0[01])$
{{- end }}

{{/* A list of what is wrong with the retry policy, with the rules of internal/retrypolicy. */}}
{{- define "terbayar.check.policy" -}}
{{- $wrong := list }}
{{- $safe := include "terbayar.safeCodes" . | fromYaml }}
{{- /* The first delay that a rule inherits. */}}
{{- $bases := dict "retry" "2s" "refresh_token" "1s" "verify" "5s" }}
{{- range $name, $policy := (.Values.retryPolicy).gateways }}
{{- $seen := list }}
{{- range $i, $rule := $policy.rules }}
{{- $path := printf "retryPolicy.gateways.%s.rules[%d]" $name $i }}
{{- $id := printf "%s %s" .code (.match | default "") }}
{{- if has $id $seen }}
{{- $wrong = append $wrong (printf "%s: a second rule for %s with the same match" $path .code) }}
{{- end }}
{{- $seen = append $seen $id }}
{{- with .match }}
{{- /* The worker has the same regular expressions. A malformed one ends the rendering here. */}}
{{- $_ := mustRegexMatch . "" }}
{{- end }}
{{- range $key := list "match" "vendor_confirms" }}
{{- if gt (get $rule $key | toString | len) 1000 }}
{{- $wrong = append $wrong (printf "%s.%s is longer than 1000 bytes" $path $key) }}
{{- end }}
{{- end }}
{{- $codes := get (get $safe $name) .action }}
{{- if and $codes (not .vendor_confirms) (not (regexMatch $codes .code)) }}
{{- $wrong = append $wrong (printf "%s: %s is not safe for %s: it could cause a duplicate charge or lose a payment (docs/retry-policy.md)" $path .action .code) }}
{{- end }}
{{- if not (hasKey $bases .action) }}
{{- range $key := list "backoff" "max_attempts" "max_elapsed" }}
{{- if hasKey $rule $key }}
{{- $wrong = append $wrong (printf "%s.%s is not allowed: %s is not repeated" $path $key $rule.action) }}
{{- end }}
{{- end }}
{{- else if (.backoff).cap }}
{{- $base := .backoff.base | default (get $bases .action) }}
{{- if lt (include "terbayar.milliseconds" .backoff.cap | int64) (include "terbayar.milliseconds" $base | int64) }}
{{- $wrong = append $wrong (printf "%s.backoff.cap: %s is less than the base %s" $path .backoff.cap $base) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if gt (toYaml .Values.retryPolicy | len) 200000 }}
{{- $wrong = append $wrong "retryPolicy is longer than 200000 bytes: it is an annotation of the pods, and Kubernetes allows 256 KiB of annotations" }}
{{- end }}
{{- toYaml $wrong }}
{{- end }}
