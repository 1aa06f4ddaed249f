{{/*
Sizes computed from other sizes, so that a single student or file cannot use up the space of all others.
Values in `config.NbExchange` take precedence; `nbexchange.refuseSizes` compares them with disk and memory.
*/}}

{{/* Bytes of a quantity of Kubernetes, as digits: 10Gi is 10737418240. */}}
{{- define "nbexchange.bytes" -}}
{{- $number := regexFind "^[0-9.]+([eE][+-]?[0-9]+)?" (toString .) -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024
  "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- $unit := trimPrefix $number (toString .) -}}
{{- if not (hasKey $units $unit) -}}
{{- fail (printf "%v is not a size. Write a number with one of the units Ki, Mi, Gi, Ti, Pi, k, M, G, T or P, as in 10Gi." .) -}}
{{- end -}}
{{- mulf (float64 $number) (get $units $unit) | int64 -}}
{{- end -}}

{{/* The volume for uploads: `name` of the value, its `text`, and `bytes`. Without `bytes`: no limit. */}}
{{- define "nbexchange.volume" -}}
{{- $onDisk := not (empty (include "nbexchange.disk" .)) -}}
{{- $text := ternary .Values.persistence.size .Values.storage.spoolSize $onDisk -}}
name: {{ ternary "persistence.size" "storage.spoolSize" $onDisk }}
text: {{ toString $text | quote }}
{{- if $text }}
bytes: {{ include "nbexchange.bytes" $text }}
{{- end }}
{{- end -}}

{{- define "nbexchange.memory" -}}
{{- dig "limits" "memory" "" .Values.resources -}}
{{- end -}}

{{/* The number of transfers that the memory allows: 256 MiB for the process and lists, 2 MiB for each way. */}}
{{- define "nbexchange.transfers" -}}
{{- div (sub (include "nbexchange.bytes" (include "nbexchange.memory" .) | int64) 268435456) 4194304 -}}
{{- end -}}

{{/* The space that a student's share is computed from: a dict of `root` and `organisation`, its quota. */}}
{{- define "nbexchange.room" -}}
{{- $volume := include "nbexchange.volume" .root | fromYaml -}}
{{- $organisation := int64 .organisation -}}
{{- $disk := ternary 0 (int64 $volume.bytes) (not (empty .root.Values.storage.url)) -}}
{{- if and $disk $organisation -}}{{ min $disk $organisation }}{{- else -}}{{ max $disk $organisation }}{{- end -}}
{{- end -}}

{{/* The computed options. */}}
{{- define "nbexchange.sizes" -}}
{{- $options := dig "NbExchange" (dict) .Values.config -}}
{{- $room := include "nbexchange.room" (dict "root" . "organisation" $options.organisation_quota) | int64 -}}
{{- with $room }}
student_quota: {{ min 10000000000 (div . 10) }}
{{- end }}
{{- with (include "nbexchange.volume" . | fromYaml).bytes }}
max_buffer_size: {{ min 5253530000 (div (int64 .) 20) }}
{{- end }}
{{- if include "nbexchange.memory" . }}
max_transfers: {{ min 400 (include "nbexchange.transfers" . | int64) }}
{{- end }}
{{- end -}}

{{/* Fails for values that contradict these sizes. Renders nothing. */}}
{{- define "nbexchange.refuseSizes" -}}
{{- $options := dig "NbExchange" (dict) .Values.config -}}
{{- $sizes := include "nbexchange.sizes" . | fromYaml -}}
{{- $volume := include "nbexchange.volume" . | fromYaml -}}
{{- $bytes := int64 $volume.bytes -}}
{{- if and $volume.bytes (lt $bytes 1073741824) -}}
{{- fail (printf "%s is %s, which is too small for an exchange. Write at least 1Gi." $volume.name $volume.text) -}}
{{- end -}}

{{- $memory := include "nbexchange.memory" . -}}
{{- if $memory -}}
{{- if lt (include "nbexchange.bytes" $memory | int64) 402653184 -}}
{{- fail (printf "resources.limits.memory is %s, which is too little for an exchange. Write at least 384Mi." $memory) -}}
{{- end -}}
{{- $transfers := int64 $options.max_transfers -}}
{{- $most := include "nbexchange.transfers" . | int64 -}}
{{- if and (hasKey $options "max_transfers") (or (not $transfers) (gt $transfers $most)) -}}
{{- fail (printf "config.NbExchange.max_transfers is %s, but resources.limits.memory is %s, which is enough for %d. Write at most %d%s." (ternary (toString $transfers) "0 (any number)" (gt $transfers 0)) $memory $most $most (ternary (printf ", or increase resources.limits.memory to at least %dMi" (add 256 (mul 4 $transfers))) "" (gt $transfers 0))) -}}
{{- end -}}
{{- end -}}

{{- if $volume.bytes -}}
{{- $file := int64 (ternary $options.max_buffer_size $sizes.max_buffer_size (hasKey $options "max_buffer_size")) -}}
{{- if gt $file (div $bytes 2) -}}
{{- fail (printf "config.NbExchange.max_buffer_size is %d, but %s is %s: one file could take more than half of it. Write at most %d, or increase %s to at least %d." $file $volume.name $volume.text (div $bytes 2) $volume.name (mul 2 $file)) -}}
{{- end -}}
{{- if not (include "nbexchange.disk" .) -}}
{{- $files := int64 (ternary $options.max_transfers_per_person 16 (hasKey $options "max_transfers_per_person")) -}}
{{- if or (not $files) (gt (mul $files $file) $bytes) -}}
{{- fail (printf "storage.spoolSize is %s, but one user may upload %s files of %d bytes at a time, and Kubernetes would evict the pod. Lower config.NbExchange.max_buffer_size or config.NbExchange.max_transfers_per_person, or increase storage.spoolSize to at least %d." $volume.text (ternary (toString $files) "any number of" (gt $files 0)) $file (mul (max 16 $files) $file)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if include "nbexchange.disk" . -}}
{{- $free := int64 $options.min_free_space -}}
{{- if gt $free (div $bytes 20) -}}
{{- fail (printf "config.NbExchange.min_free_space is %d, but persistence.size is %s, of which the service keeps at most a twentieth free. Write at most %d, or increase persistence.size to at least %d." $free $volume.text (div $bytes 20) (mul 20 $free)) -}}
{{- end -}}
{{- if and (include "nbexchange.sqlite" .) (hasKey $options "min_free_space") (not $free) -}}
{{- fail (printf "config.NbExchange.min_free_space is 0, but the SQLite database is on the disk of persistence.size (%s): uploads would fill the disk, and the database would fail. Write at least 1, at most %d, or remove it." $volume.text (div $bytes 20)) -}}
{{- end -}}
{{- end -}}

{{- $quotas := merge (dict "" dict) (deepCopy (default dict $options.quotas)) -}}
{{- range $org, $quota := $quotas -}}
{{- $path := ternary (printf "config.NbExchange.quotas.%s." $org) "config.NbExchange." (ne $org "") -}}
{{- $suffix := ternary "" "_quota" (ne $org "") -}}
{{- $isOwn := hasKey $quota "organisation" -}}
{{- $organisation := int64 (ternary $quota.organisation $options.organisation_quota $isOwn) -}}
{{- $organisationName := ternary (printf "%sorganisation" $path) "config.NbExchange.organisation_quota" $isOwn -}}
{{- $room := include "nbexchange.room" (dict "root" $ "organisation" $organisation) | int64 -}}
{{- if and (not $.Values.storage.url) (gt $organisation (sub $bytes (div $bytes 20))) -}}
{{- fail (printf "%s is %d, but persistence.size is %s, of which a twentieth stays free. Write at most %d, or increase persistence.size to at least %d." $organisationName $organisation $volume.text (sub $bytes (div $bytes 20)) (div (mul 20 $organisation) 19 | add 1)) -}}
{{- end -}}
{{- $derived := default 10000000000 $sizes.student_quota -}}
{{- $usual := ternary $options.student_quota $derived (hasKey $options "student_quota") -}}
{{- $student := int64 (ternary $quota.student $usual (hasKey $quota "student")) -}}
{{- if and $room (or (not $student) (gt $student (div $room 2))) -}}
{{- $studentName := ternary (printf "%sstudent" $path) "config.NbExchange.student_quota" (hasKey $quota "student") -}}
{{- $isOfOrganisation := eq $room $organisation -}}
{{- $roomName := ternary $organisationName "persistence.size" $isOfOrganisation -}}
{{- $roomText := ternary (toString $organisation) $volume.text $isOfOrganisation -}}
{{- $write := printf "%sstudent%s" $path $suffix -}}
{{- $more := ternary (printf ", or increase %s to at least %d" $roomName (mul 2 $student)) "" (gt $student 0) -}}
{{- fail (printf "%s is %s, but %s is %s: one student could fill it. Set %s to at most %d%s." $studentName (ternary (toString $student) "0 (no limit)" (gt $student 0)) $roomName $roomText $write (div $room 2) $more) -}}
{{- end -}}
{{- end -}}
{{- end -}}
