{{/* The pools with what a pool may leave out filled in, as YAML. components/_pools.py has the same defaults. */}}
{{- define "robolift.pools" -}}
{{- range .Values.pools }}
- name: {{ .name }}
  gpus: {{ .gpus }}
  gpuResource: {{ .gpuResource | default "nvidia.com/gpu" }}
  accelerator: {{ .accelerator | default "" | quote }}
  machineTypes: {{ .machineTypes | default list | toJson }}
  spot: {{ .spot | default false }}
  maxNodes: {{ .maxNodes | default 8 }}
  taint: {{ ternary .taint true (hasKey . "taint") }}
{{- end }}
{{- end }}

{{/* Node label that selects a pool. components/_pools.py says the same to the pipelines; a test compares the two. */}}
{{- define "robolift.pool.selector" -}}
{{- if eq .root.Values.provider "gke" -}}
cloud.google.com/compute-class: {{ .pool.name }}
{{- else -}}
robolift.io/pool: {{ .pool.name }}
{{- end }}
{{- end }}

{{/* Taints of a pool's nodes, all of them: ours, the GPU's, the compute class's. */}}
{{- define "robolift.pool.taints" -}}
{{- if .pool.gpus }}
- key: {{ .pool.gpuResource }}
  value: present
  effect: NoSchedule
{{- end }}
{{- if .pool.taint }}
- key: robolift.io/pool
  value: {{ .pool.name }}
  effect: NoSchedule
{{- end }}
{{- if eq .root.Values.provider "gke" }}
- key: cloud.google.com/compute-class
  value: {{ .pool.name }}
  effect: NoSchedule
{{- end }}
{{- end }}

{{/* Tolerations of a pod that wants the pool. */}}
{{- define "robolift.pool.tolerations" -}}
{{- if .pool.gpus }}
- key: {{ .pool.gpuResource }}
  operator: Exists
  effect: NoSchedule
{{- end }}
{{- if .pool.taint }}
- key: robolift.io/pool
  operator: Equal
  value: {{ .pool.name }}
  effect: NoSchedule
{{- end }}
{{- if eq .root.Values.provider "gke" }}
- key: cloud.google.com/compute-class
  operator: Equal
  value: {{ .pool.name }}
  effect: NoSchedule
{{- end }}
{{- end }}
