{{/* What would lose coursework, let nobody in, or show a secret is not rendered. Gives nothing. */}}
{{- define "nbexchange.refuse" -}}
{{- $v := .Values -}}
{{- $name := include "nbexchange.fullname" . -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- fail (printf "objects would be called %s, and the name of a Service begins with a letter: set fullnameOverride." $name) -}}
{{- end -}}
{{- $path := printf "/services/%s/" $v.hub.serviceName -}}
{{- if and (include "nbexchange.private" .) (not (hasSuffix $path $v.baseUrl)) -}}
{{- fail (printf "the hub would look for the service below %s, but baseUrl is %s: let it end so, or set hub.serviceName." $path $v.baseUrl) -}}
{{- end -}}
{{- if and $v.db.url $v.db.existingSecret -}}
{{- fail "db.url and db.existingSecret are both set: which is the database? Take one away." -}}
{{- end -}}
{{- if hasPrefix "sqlite" $v.db.url -}}
{{- fail "db.url names an SQLite file: leave db.url empty, then the chart keeps SQLite on the disk of persistence." -}}
{{- end -}}
{{- if or (gt (int $v.replicas) 1) $v.autoscaling.enabled -}}
{{- $many := ternary "autoscaling.enabled is true" (printf "replicas is %d" (int $v.replicas)) $v.autoscaling.enabled -}}
{{- if include "nbexchange.sqlite" . -}}
{{- fail (printf "%s, but the database is SQLite, which is for one process: set db.existingSecret or db.url to a MariaDB, MySQL or PostgreSQL, or keep replicas at 1 without autoscaling." $many) -}}
{{- else if include "nbexchange.alone" . -}}
{{- fail (printf "%s, but files are on a disk that is %s, which one node has at a time: set storage.url to an object store, or persistence.accessMode to ReadWriteMany on a disk that is, or keep replicas at 1 without autoscaling." $many $v.persistence.accessMode) -}}
{{- end -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is larger than autoscaling.maxReplicas." -}}
{{- end -}}
{{- include "nbexchange.refuseSizes" . -}}
{{- if and $v.storage.credentials $v.storage.existingSecret -}}
{{- fail "storage.credentials and storage.existingSecret are both set: take one away." -}}
{{- end -}}
{{- if and (not $v.storage.url) (or $v.storage.options $v.storage.credentials $v.storage.existingSecret) -}}
{{- fail "storage.options, storage.credentials and storage.existingSecret are for an object store: set storage.url, or take them away." -}}
{{- end -}}
{{- if and $v.tokenFile.inline $v.tokenFile.existingSecret -}}
{{- fail "tokenFile.inline and tokenFile.existingSecret are both set: take one away." -}}
{{- end -}}
{{- if and $v.hub.enabled (include "nbexchange.tokenFile" .) -}}
{{- fail "hub.enabled and tokenFile both say who people are: set hub.enabled=false, or take tokenFile away." -}}
{{- end -}}
{{- if $v.tokenFile.inline -}}
{{- if hasKey (fromJson $v.tokenFile.inline) "Error" -}}
{{- fail "tokenFile.inline is no JSON object: {\"<token>\": {\"name\": \"ada\", \"courses\": {\"physics\": \"Instructor\"}}}" -}}
{{- end -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled is true, but httpRoute.parentRefs names no gateway." -}}
{{- end -}}
{{- if and $v.metrics.prometheusRule.enabled (not $v.metrics.serviceMonitor.enabled) -}}
{{- fail "metrics.prometheusRule needs what the ServiceMonitor reads: set metrics.serviceMonitor.enabled=true." -}}
{{- end -}}

{{- $service := dig "NbExchange" (dict) $v.config -}}
{{- $code := values $v.extraConfig | join "\n" -}}
{{- if not (or $v.hub.enabled (include "nbexchange.tokenFile" .) $service.user_plugin_class (contains "user_plugin_class" $code)) -}}
{{- fail "hub.enabled is false and nobody would be let in: set tokenFile.inline or tokenFile.existingSecret, or name your class in config.NbExchange.user_plugin_class." -}}
{{- end -}}

{{- $owned := dict
  "db_url" "db.existingSecret or db.url"
  "storage_url" "storage.url"
  "storage_options" "storage.options, and storage.existingSecret for its keys"
  "metrics_token" "metrics.existingSecret, which the ServiceMonitor reads too"
  "base_url" "baseUrl"
  "base_storage_location" "persistence; it is always /srv/nbexchange"
  "ip" "nothing; it is every address of the pod"
  "port" "service.port; the pod's is always 9000"
  "config_file" "config and extraConfig"
  "reset_db" "nothing; every start would throw all rows away"
  "generate_config" "nothing; the service would not start" -}}
{{- /* The chart compares them with disk and memory (_sizes.tpl), so they have to be where it looks. */}}
{{- $compared := list "student_quota" "organisation_quota" "quotas" "min_free_space" "max_buffer_size" "max_transfers" "max_transfers_per_person" -}}
{{- /* traitlets gives a class what is said of those that it is made from. */ -}}
{{- range $class := list "NbExchange" "Application" "SingletonConfigurable" "LoggingConfigurable" "Configurable" -}}
{{- $traits := dig $class (dict) $v.config -}}
{{- range $name, $instead := $owned -}}
{{- if hasKey $traits $name -}}
{{- fail (printf "config.%s.%s is the chart's to set: use %s." $class $name $instead) -}}
{{- end -}}
{{- if include "nbexchange.isSetIn" (dict "code" $code "class" $class "name" $name) -}}
{{- fail (printf "extraConfig sets c.%s.%s, which is the chart's to set: use %s." $class $name $instead) -}}
{{- end -}}
{{- end -}}
{{- range $name := $compared -}}
{{- if or (and (ne $class "NbExchange") (hasKey $traits $name)) (include "nbexchange.isSetIn" (dict "code" $code "class" $class "name" $name)) -}}
{{- fail (printf "%s.%s is set outside config.NbExchange, where the chart does not compare it with the sizes of disk and memory. Set config.NbExchange.%s instead." $class $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "NbExchange\\.stop_(delay|grace)\\s*=[^=]" $code -}}
{{- fail "extraConfig sets stop_delay or stop_grace: use config.NbExchange, from which terminationGracePeriodSeconds follows." -}}
{{- end -}}

{{- /* The end of the name of a variable that holds one, in the words of drivers and clients. */ -}}
{{- $secret := "((^|_)pass|password|passwd|passphrase|pwd|secret|token|credentials?|dsn|connection_string|access_key_id|(secret|access|api|account|private|sas|master|encryption)_?key)" -}}
{{- $variables := dict
  "NBEX_DB_URL" "db.existingSecret or db.url"
  "NBEX_STORAGE_URL" "storage.url"
  "NBEXCHANGE_DATA" "persistence"
  "JUPYTERHUB_SERVICE_NAME" "hub.serviceName"
  "JUPYTERHUB_SERVICE_PREFIX" "baseUrl"
  "JUPYTERHUB_API_URL" "hub.apiUrl"
  "JUPYTERHUB_API_TOKEN" "hub.existingSecret"
  "NBEXCHANGE_METRICS_TOKEN" "metrics.existingSecret"
  "HOME" "nothing; it is always /tmp" -}}
{{- range $name, $value := $v.extraEnv -}}
{{- if hasKey $variables $name -}}
{{- fail (printf "extraEnv.%s is the chart's to set: use %s." $name (get $variables $name)) -}}
{{- end -}}
{{- $looks := or (regexMatch (printf "(?i)%s$" $secret) $name) (regexMatch "://[^/\\s:@]*:[^@\\s]+@|[?&;](password|passwd|pwd|sig|token)=" (toString $value)) -}}
{{- if and (kindIs "string" $value) $looks -}}
{{- fail (printf "extraEnv.%s looks like a secret in plain text: put it into a Secret and give it as {valueFrom: {secretKeyRef: {name: ..., key: ...}}}." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether `code` assigns to the option `name` of a class: c.Class.name = or c["Class"]["name"] =. */}}
{{- define "nbexchange.isSetIn" -}}
{{- if regexMatch (printf "\\b%s\\b[\"'\\]]*\\s*(\\.\\s*|\\[\\s*[\"'])%s\\b[\"'\\]]*\\s*=[^=]" .class .name) .code -}}true{{- end -}}
{{- end -}}
