#!/bin/sh
# Save uvicorn with its application, start a copy of it, ask it, and end it: examples/servers/run.sh [PORT]
set -eu
cd "$(dirname "$0")"
port=${1:-8000}
work=$(mktemp -d)
libcriu-py snapshot -o "$work/snap" --exit fast --preload warm --learn-until "$port" uvicorn app:app --port "$port"
libcriu-py run "$work/snap" app:app --port "$port" &
server=$!
trap 'kill "$server"; wait "$server" || true; rm -r "$work"' EXIT
until curl --silent --fail "http://127.0.0.1:$port/squares/12"; do sleep 0.01; done
echo
