{{/*
The name of every object of the release. Objects of the whole cluster bear it
too, so two releases need two names.
*/}}
{{- define "marketplane.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- printf "%s-operator" (.Release.Name | trunc 44 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* What finds the operator's pods. It must never change: selectors can't. */}}
{{- define "marketplane.selectorLabels" -}}
app.kubernetes.io/name: marketplane-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "marketplane.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/part-of: marketplane
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "marketplane.selectorLabels" . }}
{{- end -}}

{{- define "marketplane.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/*
Where the Marketplace of `helm test` and of the NOTES is: in the first of the
watched namespaces, if the one that is named is none of them.
*/}}
{{- define "marketplane.testNamespace" -}}
{{- $namespace := .Values.test.marketplace.namespace -}}
{{- if and .Values.watchNamespaces (not (has $namespace .Values.watchNamespaces)) -}}
{{- $namespace = first .Values.watchNamespaces -}}
{{- end -}}
{{- $namespace -}}
{{- end -}}

{{/* Both satisfy Pod Security "restricted". */}}
{{- define "marketplane.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "marketplane.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
  - ALL
{{- end -}}

{{- define "marketplane.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end -}}
{{- end -}}
