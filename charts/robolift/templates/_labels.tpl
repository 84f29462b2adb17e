{{/* Labels of everything the chart makes. Call with (dict "root" $ "component" "reaper"). */}}
{{- define "robolift.labels" -}}
app.kubernetes.io/name: robolift
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* What a Service or Deployment finds its pods by: the labels that no upgrade changes. */}}
{{- define "robolift.selector" -}}
app.kubernetes.io/name: robolift
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}
