{{- define "nbexchange.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* These never change, because a Deployment cannot change them. */}}
{{- define "nbexchange.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: service
{{- end -}}

{{- define "nbexchange.otherLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "nbexchange.labels" -}}
{{ include "nbexchange.selectorLabels" . }}
{{ include "nbexchange.otherLabels" . }}
{{- end -}}

{{/* Labels of objects other than the service: a dict of `root` and `component`. */}}
{{- define "nbexchange.labelsOf" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{ include "nbexchange.otherLabels" .root }}
{{- end -}}

{{/* A dict of `root` and `more`: labels of the service and others; those of the service take precedence. */}}
{{- define "nbexchange.labelsWith" -}}
{{- merge (include "nbexchange.labels" .root | fromYaml) .more | toYaml -}}
{{- end -}}

{{- define "nbexchange.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "nbexchange.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{ .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create -}}
{{ include "nbexchange.fullname" . }}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{/* "true" or nothing, like all that follow: the database is a file on the disk. */}}
{{- define "nbexchange.sqlite" -}}
{{- if not (or .Values.db.url .Values.db.existingSecret) -}}true{{- end -}}
{{- end -}}

{{- define "nbexchange.disk" -}}
{{- if or (include "nbexchange.sqlite" .) (not .Values.storage.url) -}}true{{- end -}}
{{- end -}}

{{/* Two processes would corrupt each other's data, or cannot mount the same disk. */}}
{{- define "nbexchange.alone" -}}
{{- if include "nbexchange.sqlite" . -}}true
{{- else if and (include "nbexchange.disk" .) (ne .Values.persistence.accessMode "ReadWriteMany") -}}true
{{- end -}}
{{- end -}}

{{- define "nbexchange.migrates" -}}
{{- if and .Values.migration.enabled (not (include "nbexchange.sqlite" .)) -}}true{{- end -}}
{{- end -}}

{{- define "nbexchange.tokenFile" -}}
{{- if or .Values.tokenFile.inline .Values.tokenFile.existingSecret -}}true{{- end -}}
{{- end -}}

{{- define "nbexchange.hubKey" -}}
{{- default (printf "hub.services.%s.apiToken" .Values.hub.serviceName) .Values.hub.existingSecretKey -}}
{{- end -}}

{{/* All clients are known: they come through the hub's proxy, and in no other way. */}}
{{- define "nbexchange.private" -}}
{{- if and .Values.hub.enabled (not .Values.ingress.enabled) (not .Values.httpRoute.enabled) (eq .Values.service.type "ClusterIP") -}}true{{- end -}}
{{- end -}}

{{- define "nbexchange.claim" -}}
{{- default (include "nbexchange.fullname" .) .Values.persistence.existingClaim -}}
{{- end -}}

{{/* A dict of `root` and `secret`, the name of the Secret that holds db.url. */}}
{{- define "nbexchange.databaseEnv" -}}
{{- $db := .root.Values.db -}}
{{- if not (include "nbexchange.sqlite" .root) }}
- name: NBEX_DB_URL
  valueFrom:
    secretKeyRef:
      name: {{ default .secret $db.existingSecret | quote }}
      key: {{ ternary $db.existingSecretKey "db-url" (not (empty $db.existingSecret)) | quote }}
{{- end }}
{{- end -}}

{{- define "nbexchange.extraEnv" -}}
{{- range $name, $value := .Values.extraEnv }}
- name: {{ $name }}
  {{- if kindIs "string" $value }}
  value: {{ $value | toJson }}
  {{- else }}
  {{- toYaml $value | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "nbexchange.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.securityContext }}
{{- if .runAsUser }}
runAsUser: {{ int64 .runAsUser }}
{{- end }}
{{- if .runAsGroup }}
runAsGroup: {{ int64 .runAsGroup }}
{{- end }}
{{- if .fsGroup }}
fsGroup: {{ int64 .fsGroup }}
{{- /* Otherwise Kubernetes visits every file of a large store before each start. */}}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "nbexchange.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "nbexchange.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}
