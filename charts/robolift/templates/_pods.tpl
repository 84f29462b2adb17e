{{/* Image by name, from the lock file where it was given. Call with (dict "root" $ "name" "cpu"). */}}
{{- define "robolift.image" -}}
{{ get .root.Values.images .name | default (printf "robolift-%s:%s" .name .root.Chart.AppVersion) }}
{{- end }}

{{/* Pod settings that are the same everywhere: uid 10001, no privileges, an account, pull secrets; "tmpSize" bounds /tmp. */}}
{{- define "robolift.pod" -}}
serviceAccountName: {{ .account }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 0
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
volumes:
  - name: tmp
    emptyDir: {{ with .tmpSize }}{sizeLimit: {{ . }}}{{ else }}{}{{ end }}
  {{- with .volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Container settings that are the same everywhere: a read-only root, /tmp to write in. */}}
{{- define "robolift.container" -}}
imagePullPolicy: {{ .root.Values.imagePullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- with .mounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
