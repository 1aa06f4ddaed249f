{{/*
nbexchange_config.py. A value travels as JSON in a Python string: the escapes of JSON are Python's too,
and json.loads makes true, null and numbers what they are in Python.
*/}}
{{- define "nbexchange.configFile" -}}
# Made by the chart from its values.
import json

c = get_config()

c.NbExchange.ip = ""
c.NbExchange.port = 9000
c.NbExchange.base_url = {{ .Values.baseUrl | toJson }}
c.NbExchange.base_storage_location = "/srv/nbexchange"
{{- if include "nbexchange.sqlite" . }}
c.NbExchange.upgrade_db = True
{{- end }}
{{- with .Values.storage.url }}
c.NbExchange.storage_url = {{ include "nbexchange.python" . }}
{{- end }}
{{- with .Values.storage.options }}
c.NbExchange.storage_options = {{ include "nbexchange.python" . }}
{{- end }}
{{- if .Values.hub.enabled }}
c.NbExchange.user_plugin_class = "nbexchange.handlers.auth.jupyterhub.JupyterHubUserHandler"
{{- else if include "nbexchange.tokenFile" . }}
c.NbExchange.user_plugin_class = "nbexchange.handlers.auth.token_file.TokenFileUserHandler"
c.TokenFileUserHandler.path = "/etc/nbexchange/people.json"
{{- end }}
{{- range $trait, $value := include "nbexchange.sizes" . | fromYaml }}
{{- if not (hasKey (dig "NbExchange" (dict) $.Values.config) $trait) }}
c.NbExchange.{{ $trait }} = {{ int64 $value }}
{{- end }}
{{- end }}
{{- range $class, $traits := .Values.config }}
{{- range $trait, $value := $traits }}
c.{{ $class }}.{{ $trait }} = {{ include "nbexchange.python" $value }}
{{- end }}
{{- end }}
{{- range $name, $code := .Values.extraConfig }}

# {{ $name }}
{{ $code }}
{{- end }}
{{ end -}}

{{- define "nbexchange.python" -}}
json.loads({{ . | toJson | toJson }})
{{- end -}}

{{/* Of the Secret with this name, in which there is more than the file. */}}
{{- define "nbexchange.configVolume" -}}
secret:
  secretName: {{ . }}
  items:
    - key: nbexchange_config.py
      path: nbexchange_config.py
{{- end -}}

{{- define "nbexchange.secretData" -}}
{{- with .Values.db.url }}
db-url: {{ b64enc . }}
{{- end }}
{{- with .Values.tokenFile.inline }}
people.json: {{ b64enc . }}
{{- end }}
{{- range $name, $value := .Values.storage.credentials }}
{{ $name }}: {{ b64enc $value | quote }}
{{- end }}
{{- end -}}
