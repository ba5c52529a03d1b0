{{/* The name of all objects. */}}
{{- define "pod-monitor.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the monitor's pods. Never to be changed: a Deployment's selector cannot be. */}}
{{- define "pod-monitor.selector" -}}
app.kubernetes.io/name: pod-monitor
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "pod-monitor.labels" -}}
{{ include "pod-monitor.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "pod-monitor.serviceAccount" -}}
{{- default (include "pod-monitor.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* The settings, as the monitor reads them. */}}
{{- define "pod-monitor.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $name := include "pod-monitor.fullname" . -}}
{{- if not (or (hasKey $config "namespace") (index $config "all-namespaces")) -}}
{{- $_ := set $config "namespace" (list .Release.Namespace) -}}
{{- end -}}
{{- /* The monitor's own default, pod-monitor, need not be said. */ -}}
{{- if not (or (hasKey $config "lease-name") (eq $name "pod-monitor")) -}}
{{- $_ := set $config "lease-name" $name -}}
{{- end -}}
{{- if and .Values.kafkaSecret.name .Values.kafkaSecret.propertiesKey -}}
{{- $_ := set $config "kafka-config-file" (printf "/etc/pod-monitor-kafka/%s" .Values.kafkaSecret.propertiesKey) -}}
{{- end -}}
{{- if .Values.rules -}}
{{- if hasKey $config "rules" }}{{ fail "config.rules and rules: set one of them, a file on a volume of yours or the rules themselves" }}{{ end -}}
{{- $_ := set $config "rules" "/etc/pod-monitor/rules.yaml" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The file of rules: its text as it was given, or made of the list. */}}
{{- define "pod-monitor.rules" -}}
{{- if kindIs "string" .Values.rules }}{{ .Values.rules }}{{ else }}{{ dict "rules" .Values.rules | toYaml }}{{ end -}}
{{- end -}}

{{/* The namespaces that it watches, as a JSON list; empty for all. */}}
{{- define "pod-monitor.watched" -}}
{{- $config := include "pod-monitor.config" . | fromYaml -}}
{{- ternary (list) $config.namespace (default false (index $config "all-namespaces")) | uniq | toJson -}}
{{- end -}}

{{/* What it may do with the pods that it watches. */}}
{{- define "pod-monitor.watchedRules" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch{{ if index .Values.config "finalizer" }}, patch{{ end }}{{ if index .Values.config "delete-finished" }}, delete{{ end }}]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
{{- if ne (toString (index .Values.config "kubernetes-events")) "false" }}
- apiGroups: [""]
  resources: [events]
  verbs: [list]
{{- end }}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get]
{{- end -}}

{{/* The monitor's selector as a LabelSelector, which knows no numbers. */}}
{{- define "pod-monitor.labelSelector" -}}
{{- $labels := dict -}}
{{- $rest := list -}}
{{- range regexFindAll "[^,(]+(\\([^)]*\\))?" .Values.config.selector -1 -}}
{{- $part := trim . -}}
{{- $key := regexFind "[^!=<>\\s(]+" $part -}}
{{- $values := list -}}
{{- range splitList "," (regexFind "\\(.*\\)" $part | trimAll "()") }}{{ $values = append $values (trim .) }}{{ end -}}
{{- if regexMatch "[<>]" $part -}}
{{- fail (printf "finalizerPolicy.enabled: a policy cannot compare numbers as config.selector does in '%s': leave it off, and let whoever creates the pods write the finalizer" $part) -}}
{{- else if regexMatch "\\snotin\\s*\\(" $part -}}
{{- $rest = append $rest (dict "key" $key "operator" "NotIn" "values" $values) -}}
{{- else if regexMatch "\\sin\\s*\\(" $part -}}
{{- $rest = append $rest (dict "key" $key "operator" "In" "values" $values) -}}
{{- else if hasPrefix "!" $part -}}
{{- $rest = append $rest (dict "key" $key "operator" "DoesNotExist") -}}
{{- else if contains "=" $part -}}
{{- $value := regexReplaceAll "^.*=" $part "" | trim -}}
{{- if contains "!=" $part -}}
{{- $rest = append $rest (dict "key" $key "operator" "NotIn" "values" (list $value)) -}}
{{- else if hasKey $labels $key -}}
{{- $rest = append $rest (dict "key" $key "operator" "In" "values" (list $value)) -}}
{{- else -}}
{{- $_ := set $labels $key $value -}}
{{- end -}}
{{- else -}}
{{- $rest = append $rest (dict "key" $key "operator" "Exists") -}}
{{- end -}}
{{- end -}}
{{- $selector := dict -}}
{{- with $labels }}{{ $_ := set $selector "matchLabels" . }}{{ end -}}
{{- with $rest }}{{ $_ := set $selector "matchExpressions" . }}{{ end -}}
{{- toYaml $selector -}}
{{- end -}}

{{/* The version in which this cluster has MutatingAdmissionPolicy. */}}
{{- define "pod-monitor.policyVersion" -}}
{{- $found := "" -}}
{{- range list "v1beta1" "v1" -}}
{{- if $.Capabilities.APIVersions.Has (printf "admissionregistration.k8s.io/%s/MutatingAdmissionPolicy" .) }}{{ $found = . }}{{ end -}}
{{- end -}}
{{- if not $found -}}
{{- fail "finalizerPolicy.enabled: this cluster has no MutatingAdmissionPolicy: that is Kubernetes 1.36, or 1.34 with its v1beta1 turned on (helm template: add --api-versions admissionregistration.k8s.io/v1/MutatingAdmissionPolicy); leave it off, and let whoever creates the pods write the finalizer" -}}
{{- end -}}
{{- printf "admissionregistration.k8s.io/%s" $found -}}
{{- end -}}

{{/* Ports of the brokers, as a JSON list. */}}
{{- define "pod-monitor.kafkaPorts" -}}
{{- $ports := .Values.networkPolicy.kafkaPorts -}}
{{- if not $ports -}}
{{- range compact (splitList "," (default "" .Values.config.kafka)) -}}
{{- $ports = append $ports (regexFind "[0-9]+$" . | int) -}}
{{- end -}}
{{- end -}}
{{- default (list 9092) $ports | uniq | toJson -}}
{{- end -}}

{{/* Says what is missing before the API server says something less clear. */}}
{{- define "pod-monitor.needsOperator" -}}
{{- if not (.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
{{- fail (printf "%s: this cluster has no monitoring.coreos.com/v1: install the CRDs of the Prometheus Operator first (helm template: add --api-versions monitoring.coreos.com/v1), or leave it off" .value) -}}
{{- end -}}
{{- end -}}
