{{- define "call-me.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "call-me.fullname" -}}
{{- $name := include "call-me.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $full | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "call-me.selector" -}}
app.kubernetes.io/name: {{ include "call-me.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "call-me.metadata" -}}
name: {{ include "call-me.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "call-me.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
  {{- with .Values.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "call-me.keys" -}}
{{- if and .Values.keys.text .Values.keys.existingSecret }}{{ fail "set keys.existingSecret or keys.text, not both" }}{{ end }}
{{- if not (or .Values.keys.text .Values.keys.existingSecret) }}{{ fail "set keys.existingSecret to a Secret with the entry keys, or keys.text to the keys" }}{{ end }}
{{- .Values.keys.existingSecret | default (include "call-me.fullname" .) }}
{{- end }}
