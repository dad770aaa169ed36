{{/* What the chart refuses to install, because it would start and not work, or
work and be open. Everything else about the configuration is Gatehouse's to
judge: 'gatehouse config check'. */}}
{{- define "gatehouse.checks" -}}
{{- $config := include "gatehouse.parsedConfig" . | fromYaml -}}
{{- $text := include "gatehouse.config" . -}}

{{- /* Where other volumes are, such as those of a CSI driver for secrets. */}}
{{- $mounts := "" -}}
{{- range .Values.extraVolumeMounts }}{{ $mounts = printf "%s %s/" $mounts (trimSuffix "/" .mountPath) }}{{ end }}

{{- if not .Values.image.repository }}
{{- fail "\n\nimage.repository is not set: build the image with deploy/Dockerfile, push it to your registry, and name it there\n" }}
{{- end }}

{{- range $name, $port := dict "check" 9001 "http" 8081 }}
{{- $listen := include "gatehouse.listen" (dict "root" $ "name" $name "default" (printf "127.0.0.1:%d" $port)) -}}
{{- if regexMatch "^(127\\.[0-9.]+|localhost|\\[::1\\]):|^unix://" $listen }}
{{- fail (printf "\n\nconfig: server.%s.listen is %q, which nobody outside the pod reaches: write \":%d\"\n" $name $listen $port) }}
{{- end }}
{{- end }}

{{- $redis := ($config.redis).url | default "" | toString -}}
{{- if not $redis }}
{{- fail "\n\nconfig: redis.url is not set: name your Redis, or \"${REDIS_URL}\" and a key of the Secret in secrets.env\n" }}
{{- end }}
{{- if hasPrefix "embedded:" $redis }}
{{- fail "\n\nconfig: redis.url is embedded: each pod would have sessions and revocations of its own. Name a Redis\n" }}
{{- end }}

{{- if and .Values.secrets.existingSecret .Values.secrets.trialValues }}
{{- fail "\n\nsecrets.existingSecret and secrets.trialValues are both set: keep the first\n" }}
{{- end }}
{{- if not (include "gatehouse.secretName" .) }}
{{- if and (contains "/etc/gatehouse/secrets/" $text) (not (contains " /etc/gatehouse/secrets/" $mounts)) }}
{{- fail "\n\nsecrets.existingSecret is not set, and the configuration names files below /etc/gatehouse/secrets: make a Secret with these files as keys, and name it\n" }}
{{- end }}
{{- range $name, $key := .Values.secrets.env }}{{ if $key }}
{{- fail (printf "\n\nsecrets.existingSecret is not set, and secrets.env takes %s from its key %s: name the Secret, or set secrets.env.%s to null\n" $name $key $name) }}
{{- end }}{{ end }}
{{- end }}

{{- range $name, $tls := .Values.tls }}
{{- $dir := printf "/etc/gatehouse/tls/%s/" $name -}}
{{- if and $tls.secretName (not (contains $dir $text)) }}
{{- fail (printf "\n\ntls.%s.secretName is set, but the configuration doesn't use it: name %stls.crt and %stls.key (or ca.crt) in %s.tls\n" $name $dir $dir (ternary "redis" (printf "server.%s" $name) (eq $name "redis"))) }}
{{- end }}
{{- if and (contains $dir $text) (not $tls.secretName) (not (contains (printf " %s" $dir) $mounts)) }}
{{- fail (printf "\n\ntls.%s.secretName is not set, and the configuration names files below %s: name the Secret with the certificate\n" $name $dir) }}
{{- end }}
{{- end }}

{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.gateways) }}
{{- fail "\n\nnetworkPolicy.gateways is empty, so that no gateway could ask: say which pods are the gateway, for example\n  [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: istio-system}}, podSelector: {matchLabels: {istio: ingressgateway}}}]\n" }}
{{- end }}

{{- $replicas := int .Values.replicaCount -}}
{{- if .Values.autoscaling.enabled }}
{{- $replicas = int .Values.autoscaling.minReplicas -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail "\n\nautoscaling.minReplicas is more than autoscaling.maxReplicas\n" }}
{{- end }}
{{- if not ((.Values.resources).requests).cpu }}
{{- fail "\n\nautoscaling counts percents of resources.requests.cpu, which is not set\n" }}
{{- end }}
{{- end }}
{{- with .Values.podDisruptionBudget.minAvailable }}
{{- if and $.Values.podDisruptionBudget.enabled (not (hasSuffix "%" (toString .))) (ge (int .) $replicas) }}
{{- fail (printf "\n\npodDisruptionBudget.minAvailable is %d with %d pods: no node could ever be drained. Give less, or more pods\n" (int .) $replicas) }}
{{- end }}
{{- end }}

{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) }}
{{- fail "\n\nmetrics.serviceMonitor needs the Service: set metrics.enabled, or take metrics.podMonitor\n" }}
{{- end }}
{{- if and (or .Values.metrics.enabled .Values.metrics.podMonitor.enabled) (include "gatehouse.opsIsLocal" .) }}
{{- fail (printf "\n\nmetrics are on, but config: server.ops.listen is %q, which nobody outside the pod reaches: write \":9090\"\n" (include "gatehouse.opsListen" .)) }}
{{- end }}
{{- if and (or .Values.metrics.enabled .Values.metrics.podMonitor.enabled) .Values.networkPolicy.enabled (not .Values.networkPolicy.monitoring) }}
{{- fail "\n\nmetrics are on, but networkPolicy.monitoring is empty, so that nobody could fetch them: say which pods are your Prometheus\n" }}
{{- end }}
{{- end }}
