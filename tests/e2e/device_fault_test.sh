#!/bin/sh
# A fault of the device in the middle of a generation: the request gets an error
# and no more tokens, the server stops and its exit code is that of a failure.
# Usage: device_fault_test.sh LORIKEET SOURCE_DIR
set -eu
lorikeet=$1
model=$2/demo/base
dir=$(mktemp -d)
trap 'kill "$server" 2> /dev/null || true; rm -rf "$dir"' EXIT

fail() {
  echo "FAILED: $1" >&2
  cat "$dir/serve.err" >&2
  exit 1
}

# Kernels that run before one faults: enough to start and to say a few tokens.
CUDA_ON_HOST=fault=1000 LORIKEET_CUDA_ON_HOST_BUILD=fast \
  "$lorikeet" serve --model "$model" --device cuda-on-host --grpc-port 0 \
  > "$dir/serve.out" 2> "$dir/serve.err" &
server=$!
for _ in $(seq 300); do
  grep -q '^ready' "$dir/serve.out" && break
  kill -0 "$server" 2> /dev/null || fail "the server did not start"
  sleep 0.1
done
address=$(sed -n 's/^ready grpc=//p' "$dir/serve.out")

code=0
"$lorikeet" generate --server "$address" --task base --max-tokens 200 \
  --ignore-eos --prompt "Word: apple" > "$dir/answer" 2> "$dir/error" || code=$?
[ "$code" -ne 0 ] || fail "the request succeeded: $(cat "$dir/answer")"
grep -q 'illegal memory access' "$dir/error" ||
  fail "the request's error is $(cat "$dir/error")"

code=0
wait "$server" || code=$?
[ "$code" -ne 0 ] || fail "the server's exit code is 0"
[ "$code" -lt 128 ] || fail "a signal ended the server: $code"
grep -q 'illegal memory access' "$dir/serve.err" ||
  fail "the server does not name the fault"
