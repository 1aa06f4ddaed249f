{{/* Fails for values that would lose coursework, lock all users out, or reveal a secret. Renders nothing. */}}
{{- define "nbexchange.refuse" -}}
{{- $v := .Values -}}
{{- $name := include "nbexchange.fullname" . -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- fail (printf "Objects would be called %s, but the name of a Service has to begin with a letter. Set fullnameOverride." $name) -}}
{{- end -}}
{{- $path := printf "/services/%s/" $v.hub.serviceName -}}
{{- if and (include "nbexchange.private" .) (not (hasSuffix $path $v.baseUrl)) -}}
{{- fail (printf "The hub expects the service below %s, but baseUrl is %s. Change the end of baseUrl, or set hub.serviceName." $path $v.baseUrl) -}}
{{- end -}}
{{- if and $v.db.url $v.db.existingSecret -}}
{{- fail "db.url and db.existingSecret are both set. Remove one of them." -}}
{{- end -}}
{{- if hasPrefix "sqlite" $v.db.url -}}
{{- fail "db.url names an SQLite file. Leave db.url empty: the chart then keeps SQLite on the disk of persistence." -}}
{{- end -}}
{{- if or (gt (int $v.replicas) 1) $v.autoscaling.enabled -}}
{{- $many := ternary "autoscaling.enabled is true" (printf "replicas is %d" (int $v.replicas)) $v.autoscaling.enabled -}}
{{- if include "nbexchange.sqlite" . -}}
{{- fail (printf "%s, but the database is SQLite, which supports only one process. Set db.existingSecret or db.url to a MariaDB, MySQL or PostgreSQL, or keep replicas at 1 without autoscaling." $many) -}}
{{- else if include "nbexchange.alone" . -}}
{{- fail (printf "%s, but files are on a disk that is %s, which only one node can mount. Set storage.url to an object store, or persistence.accessMode to ReadWriteMany on a disk that supports it, or keep replicas at 1 without autoscaling." $many $v.persistence.accessMode) -}}
{{- end -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is larger than autoscaling.maxReplicas. Change one of them." -}}
{{- end -}}
{{- include "nbexchange.refuseSizes" . -}}
{{- if and $v.storage.credentials $v.storage.existingSecret -}}
{{- fail "storage.credentials and storage.existingSecret are both set. Remove one of them." -}}
{{- end -}}
{{- if and (not $v.storage.url) (or $v.storage.options $v.storage.credentials $v.storage.existingSecret) -}}
{{- fail "storage.options, storage.credentials and storage.existingSecret are for an object store, but there is none. Set storage.url, or remove them." -}}
{{- end -}}
{{- if and $v.tokenFile.inline $v.tokenFile.existingSecret -}}
{{- fail "tokenFile.inline and tokenFile.existingSecret are both set. Remove one of them." -}}
{{- end -}}
{{- if and $v.hub.enabled (include "nbexchange.tokenFile" .) -}}
{{- fail "hub.enabled and tokenFile are two sources of users. Set hub.enabled=false, or remove tokenFile." -}}
{{- end -}}
{{- if $v.tokenFile.inline -}}
{{- if hasKey (fromJson $v.tokenFile.inline) "Error" -}}
{{- fail "tokenFile.inline is not a JSON object. Write it like this: {\"<token>\": {\"name\": \"ada\", \"courses\": {\"physics\": \"Instructor\"}}}" -}}
{{- end -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled is true, but httpRoute.parentRefs names no gateway. Add one." -}}
{{- end -}}
{{- if and $v.metrics.prometheusRule.enabled (not $v.metrics.serviceMonitor.enabled) -}}
{{- fail "metrics.prometheusRule needs the metrics that the ServiceMonitor collects. Set metrics.serviceMonitor.enabled=true." -}}
{{- end -}}

{{- $service := dig "NbExchange" (dict) $v.config -}}
{{- $code := values $v.extraConfig | join "\n" -}}
{{- if not (or $v.hub.enabled (include "nbexchange.tokenFile" .) $service.user_plugin_class (contains "user_plugin_class" $code)) -}}
{{- fail "hub.enabled is false, and there is no other source of users, so no user could sign in. Set tokenFile.inline or tokenFile.existingSecret, or name your class in config.NbExchange.user_plugin_class." -}}
{{- end -}}

{{- $owned := dict
  "db_url" "db.existingSecret or db.url"
  "storage_url" "storage.url"
  "storage_options" "storage.options, and storage.existingSecret for its keys"
  "metrics_token" "metrics.existingSecret, which the ServiceMonitor reads too"
  "base_url" "baseUrl"
  "base_storage_location" "persistence; it is always /srv/nbexchange"
  "ip" "nothing; the service listens on every address of the pod"
  "port" "service.port; the port of the pod is always 9000"
  "config_file" "config and extraConfig"
  "reset_db" "nothing; every start would erase all rows"
  "generate_config" "nothing; the service would not start" -}}
{{- /* The chart compares them with disk and memory (_sizes.tpl), so they have to be where it looks. */}}
{{- $compared := list "student_quota" "organisation_quota" "quotas" "min_free_space" "max_buffer_size" "max_transfers" "max_transfers_per_person" -}}
{{- /* traitlets applies the options of base classes to a class. */ -}}
{{- range $class := list "NbExchange" "Application" "SingletonConfigurable" "LoggingConfigurable" "Configurable" -}}
{{- $traits := dig $class (dict) $v.config -}}
{{- range $name, $instead := $owned -}}
{{- if hasKey $traits $name -}}
{{- fail (printf "config.%s.%s is set by the chart. Use %s." $class $name $instead) -}}
{{- end -}}
{{- if include "nbexchange.isSetIn" (dict "code" $code "class" $class "name" $name) -}}
{{- fail (printf "extraConfig sets c.%s.%s, which is set by the chart. Use %s." $class $name $instead) -}}
{{- end -}}
{{- end -}}
{{- range $name := $compared -}}
{{- if or (and (ne $class "NbExchange") (hasKey $traits $name)) (include "nbexchange.isSetIn" (dict "code" $code "class" $class "name" $name)) -}}
{{- fail (printf "%s.%s is set outside config.NbExchange, where the chart does not compare it with the sizes of disk and memory. Set config.NbExchange.%s instead." $class $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "NbExchange\\.stop_(delay|grace)\\s*=[^=]" $code -}}
{{- fail "extraConfig sets stop_delay or stop_grace. Set them in config.NbExchange, because the chart computes terminationGracePeriodSeconds from them." -}}
{{- end -}}

{{- /* How names of variables with secrets end, by the conventions of drivers and clients. */ -}}
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
{{- fail (printf "extraEnv.%s is set by the chart. Use %s." $name (get $variables $name)) -}}
{{- end -}}
{{- $looks := or (regexMatch (printf "(?i)%s$" $secret) $name) (regexMatch "://[^/\\s:@]*:[^@\\s]+@|[?&;](password|passwd|pwd|sig|token)=" (toString $value)) -}}
{{- if and (kindIs "string" $value) $looks -}}
{{- fail (printf "extraEnv.%s looks like a secret in plain text. Put it into a Secret, and refer to it with {valueFrom: {secretKeyRef: {name: ..., key: ...}}}." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether `code` assigns to the option `name` of a class: c.Class.name = or c["Class"]["name"] =. */}}
{{- define "nbexchange.isSetIn" -}}
{{- if regexMatch (printf "\\b%s\\b[\"'\\]]*\\s*(\\.\\s*|\\[\\s*[\"'])%s\\b[\"'\\]]*\\s*=[^=]" .class .name) .code -}}true{{- end -}}
{{- end -}}
