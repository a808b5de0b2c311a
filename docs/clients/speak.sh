#!/usr/bin/env bash
# Says a recording to the gateway until it is stored: speak.sh URL FILE
#
# FILE is headerless PCM16, 16 kHz, mono. Needs websocat 1.13 or newer, jq, curl and sha256sum. It prints
# the receipt, with the text if the URL ends with ?results=text, and ends with 0 only if all is stored.
set -euo pipefail
(($# == 2)) || { echo "usage: speak.sh URL FILE" >&2 && exit 2; }
url=$1 file=$2 attempts=5
name="client_ref=$(cat /proc/sys/kernel/random/uuid)&on_disconnect=discard"
[[ $url == *\?* ]] && url+="&$name" || url+="?$name"
protocol=speech-ingress.v1
key=() # what an edge before the gateway asks for
[[ -z ${SPEECH_API_KEY:-} ]] || key=(-H "X-API-Key: $SPEECH_API_KEY")

fail() {
  echo "$*" >&2
  exit 1
}

# Every message of 100 ms in a line, then done. websocat sends faster than speech: the gateway reads
# more slowly, and loses nothing.
say() {
  base64 -w 4264 "$file" | sed 's/^/B/'
  echo '{"event": "done"}'
}

# websocat does not tell why a handshake is refused: ask for the same by hand.
refusal() {
  curl --silent --show-error --include --max-time 2 --http1.1 "${key[@]}" -H "Connection: Upgrade" -H "Upgrade: websocket" \
    -H "Sec-WebSocket-Version: 13" -H "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==" "${url/#ws/http}" 2>&1 || true
}

told=
for ((attempt = 1; attempt <= attempts; attempt++)); do
  answers=$(say | websocat --text --base64 --binary-prefix B --no-close --protocol "$protocol" "${key[@]}" "$url" 2>/dev/null || true)
  receipt=$(jq --compact-output --slurp '
    (map(select(.status == "accepted"))[0]) as $receipt | (map(select(.status == "recognized"))[0]) as $text |
    if $receipt then $receipt + (if $text then {text: $text.text} else {} end)
    else map(select(.status == "error"))[0] end' <<<"$answers")
  case $(jq --raw-output '.status // "none"' <<<"$receipt") in
    accepted) break ;;
    error) [[ $(jq .retryable <<<"$receipt") == true ]] || fail "$receipt" ;;
    none)
      told=$(refusal)
      case $told in
        "HTTP/1.1 101"*) told="the connection broke, or there was no place for a moment" ;;
        "HTTP/1.1 503"* | "HTTP/1.1 429"*) ;; # there will be a place soon
        "HTTP/1.1"*) fail "refused for good: $(tail -n 1 <<<"$told")" ;;
      esac
      echo "attempt $attempt: ${told%%$'\r'*}" >&2
      ;;
  esac
  ((attempt < attempts)) || fail "gave up: the gateway did not take the utterance"
  after=$(sed -n 's/^Retry-After: \([0-9]*\).*/\1/Ip' <<<"$told")
  sleep "$(awk -v n="$attempt" -v r="$RANDOM" -v after="${after:-0}" \
    'BEGIN { s = 2 ^ (n - 1) * (0.5 + r / 32768); print (s > after ? s : after) }')"
done

bytes=$(jq .audio_bytes <<<"$receipt")
[[ $(head -c "$bytes" "$file" | sha256sum) == "$(jq --raw-output .sha256 <<<"$receipt") "* ]] &&
  (($(wc -c <"$file") >= bytes)) || fail "the receipt is not about the audio that was sent"
echo "$receipt"
rest=$(($(wc -c <"$file") - bytes))
((rest == 0)) || fail "cut off by $(jq --raw-output .ended_by <<<"$receipt"): $rest bytes are not stored"
