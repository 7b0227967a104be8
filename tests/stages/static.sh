#!/usr/bin/env bash
# A command that serves, answers, asks, and ends: `static.sh COMMAND`, for builds whose own tests
# are not run.
set -eu
command=$(realpath "$1")
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
mkfifo said answering
export FASTMQ_URL=unix:s
timeout 60 "$command" serve --listen unix:s >said &
server=$!
read -r line <said
[ "$line" = "listening at unix:s" ]
timeout 60 "$command" reply echo --count 1 2>answering &
responder=$!
read -r line <answering
[ "$(timeout 60 "$command" request echo hello)" = hello ]
wait "$responder"
kill "$server"
wait "$server"
