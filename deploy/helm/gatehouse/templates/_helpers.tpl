{{/* Names and labels. */}}

{{- define "gatehouse.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Leaves room for the longest suffix, -check, within 63 characters. */}}
{{- define "gatehouse.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 57 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 57 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 57 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "gatehouse.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gatehouse.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gatehouse.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/component" "authorization"
  "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $selector := include "gatehouse.selectorLabels" . | fromYaml -}}
{{- toYaml (merge (dict) $selector $own .Values.commonLabels) }}
{{- end }}

{{- define "gatehouse.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "gatehouse.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "gatehouse.image" -}}
{{- $repository := .Values.image.repository -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* The Secret that is mounted; empty for none. */}}
{{- define "gatehouse.secretName" -}}
{{- if .Values.secrets.existingSecret }}
{{- .Values.secrets.existingSecret }}
{{- else if .Values.secrets.trialValues }}
{{- include "gatehouse.fullname" . }}
{{- end }}
{{- end }}

{{/* gatehouse.yaml as Gatehouse reads it. */}}
{{- define "gatehouse.config" -}}
{{- if kindIs "string" .Values.config }}
{{- .Values.config }}
{{- else }}
{{- toYaml .Values.config }}
{{- end }}
{{- end }}

{{/* The same as a map in YAML, for what the chart has to know of it. */}}
{{- define "gatehouse.parsedConfig" -}}
{{- if kindIs "string" .Values.config }}
{{- $parsed := fromYaml .Values.config -}}
{{- if hasKey $parsed "Error" }}
{{- fail (printf "\n\nconfig is no YAML: %s\n" $parsed.Error) }}
{{- end }}
{{- toYaml $parsed }}
{{- else }}
{{- toYaml .Values.config }}
{{- end }}
{{- end }}

{{/* Where a listener listens. Arguments: root, name, and the server's default. */}}
{{- define "gatehouse.listen" -}}
{{- $server := (include "gatehouse.parsedConfig" .root | fromYaml).server | default dict -}}
{{- $listener := get $server .name | default dict -}}
{{- default .default $listener.listen }}
{{- end }}

{{- define "gatehouse.opsListen" -}}
{{- include "gatehouse.listen" (dict "root" . "name" "ops" "default" "127.0.0.1:9090") }}
{{- end }}

{{/* Whether nobody outside the pod reaches the ops listener: "true" or empty. */}}
{{- define "gatehouse.opsIsLocal" -}}
{{- if regexMatch "^(127\\.[0-9.]+|localhost|\\[::1\\]):|^unix://" (include "gatehouse.opsListen" .) }}true{{ end }}
{{- end }}

{{/* The number of a listener's port. Arguments as for gatehouse.listen. */}}
{{- define "gatehouse.port" -}}
{{- $listen := include "gatehouse.listen" . -}}
{{- if not (regexMatch ":[0-9]+$" $listen) }}
{{- fail (printf "\n\nconfig: server.%s.listen is %q: the chart needs a port there, such as \"%s\"\n" .name $listen (regexFind ":[0-9]+$" .default)) }}
{{- end }}
{{- regexFind "[0-9]+$" $listen }}
{{- end }}

{{- define "gatehouse.checkPort" -}}
{{- include "gatehouse.port" (dict "root" . "name" "check" "default" "127.0.0.1:9001") }}
{{- end }}
{{- define "gatehouse.httpPort" -}}
{{- include "gatehouse.port" (dict "root" . "name" "http" "default" "127.0.0.1:8081") }}
{{- end }}
{{- define "gatehouse.opsPort" -}}
{{- include "gatehouse.port" (dict "root" . "name" "ops" "default" "127.0.0.1:9090") }}
{{- end }}

{{/* server.drain in whole seconds, rounded up for each unit. */}}
{{- define "gatehouse.drainSeconds" -}}
{{- $server := (include "gatehouse.parsedConfig" . | fromYaml).server | default dict -}}
{{- $drain := default "20s" $server.drain | toString -}}
{{- if not (regexMatch "^([0-9]+(\\.[0-9]+)?(h|ms|m|s|us|µs|ns))+$|^0$" $drain) }}
{{- fail (printf "\n\nconfig: server.drain is %q: the chart needs a duration there, such as 20s\n" $drain) }}
{{- end }}
{{- $seconds := 0.0 -}}
{{- range regexFindAll "[0-9.]+(h|ms|m|s|us|µs|ns)" $drain -1 }}
{{- $unit := regexFind "[a-zµ]+$" . -}}
{{- $number := trimSuffix $unit . | float64 -}}
{{- $seconds = addf $seconds (ceil (mulf $number (get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 "us" 0.000001 "µs" 0.000001 "ns" 0.000000001) $unit))) }}
{{- end }}
{{- int $seconds }}
{{- end }}

{{- define "gatehouse.gracePeriod" -}}
{{- $drain := include "gatehouse.drainSeconds" . | int -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- add $drain 15 }}
{{- else }}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add $drain 10 | int) }}
{{- fail (printf "\n\nterminationGracePeriodSeconds is %d: after server.drain (%d s) calls in flight get 5 s, and the rest some more: give at least %d\n" (int .Values.terminationGracePeriodSeconds) $drain (add $drain 10)) }}
{{- end }}
{{- int .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}

{{/* Four fifths of the memory limit, in bytes; empty without one. */}}
{{- define "gatehouse.memoryLimit" -}}
{{- $limit := ((.Values.resources).limits).memory -}}
{{- if $limit }}
{{- $text := toString $limit -}}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$" $text) }}
{{- fail (printf "\n\nresources.limits.memory is %q: expected something like 256Mi\n" $text) }}
{{- end }}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- $factor := get (dict "x" 1.0 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "k" 1000.0 "M" 1000000.0 "G" 1000000000.0 "T" 1000000000000.0) (default "x" $unit) -}}
{{- mulf (trimSuffix $unit $text | float64) $factor 0.8 | floor | int64 }}
{{- end }}
{{- end }}

{{/* Whether keys are fetched from issuers or providers: "true" or empty. */}}
{{- define "gatehouse.asksIssuers" -}}
{{- $config := include "gatehouse.parsedConfig" . | fromYaml -}}
{{- $asks := ($config.oidc).providers -}}
{{- range $config.issuers }}
{{- if or .jwks_url .discovery }}{{- $asks = true }}{{ end }}
{{- end }}
{{- if $asks }}true{{ end }}
{{- end }}

{{/* The ports of the collector of traces, a map with one list; empty where there is none. */}}
{{- define "gatehouse.collectorPorts" -}}
{{- $config := include "gatehouse.parsedConfig" . | fromYaml -}}
{{- $endpoint := (($config.tracing).otlp).endpoint | default "" | toString -}}
{{- if $endpoint }}
{{- $ports := .Values.networkPolicy.egress.collector.ports -}}
{{- if not $ports }}
{{- if not (regexMatch ":[0-9]+$" $endpoint) }}
{{- fail (printf "\n\nconfig: tracing.otlp.endpoint is %q, in which the chart sees no port to open: give networkPolicy.egress.collector.ports, such as [4317]\n" $endpoint) }}
{{- end }}
{{- $ports = list (regexFind "[0-9]+$" $endpoint | int) -}}
{{- end }}
{{- toYaml (dict "ports" $ports) }}
{{- end }}
{{- end }}

{{/* A probe. Arguments: root, path, settings. Where the ops listener is on the
pod's addresses the kubelet asks it, else a process in the pod. */}}
{{- define "gatehouse.probe" -}}
{{- if include "gatehouse.opsIsLocal" .root -}}
exec:
  command: [/gatehouse, ready, --ops, {{ include "gatehouse.opsListen" .root | quote }}{{ if eq .path "/healthz" }}, --live{{ end }}]
{{- else -}}
httpGet: {path: {{ .path }}, port: ops}
{{- end }}
{{ toYaml .settings }}
{{- end }}
