#!/bin/sh
# A training job of a server that is killed and started again ends as the bytes
# of `lorikeet train`; the new version answers.
# Usage: job_cli_test.sh LORIKEET SOURCE_DIR [DEVICE STEPS]
set -eu
lorikeet=$1
model=$2/demo/base
device=${3:-cpu}
steps=${4:-200}
dir=$(mktemp -d)
server=
trap 'kill "$server" 2> /dev/null || true; rm -rf "$dir"' EXIT

fail() {
  echo "FAILED: $1" >&2
  cat "$dir/serve.err" >&2
  exit 1
}

start() {
  : > "$dir/serve.out"  # not the address of the server before
  "$lorikeet" serve --model "$model" --state-dir "$dir/state" --grpc-port 0 \
    --train-share 0.3 --threads 1 --device "$device" \
    > "$dir/serve.out" 2>> "$dir/serve.err" &
  server=$!
  for _ in $(seq 300); do
    grep -q '^ready' "$dir/serve.out" && break
    kill -0 "$server" 2> /dev/null || fail "the server did not start"
    sleep 0.1
  done
  LORIKEET_SERVER=$(sed -n 's/^ready grpc=//p' "$dir/serve.out")
  export LORIKEET_SERVER
}

for word in apple river cloud parrot pepper ocean banana island zebra winter; do
  capitals=$(echo "$word" | tr '[:lower:]' '[:upper:]')
  printf '{"prompt": "Word: %s\\nAnswer:", "completion": " %s"}\n' \
    "$word" "$capitals"
done > "$dir/train.jsonl"

start
"$lorikeet" job create up --data "$dir/train.jsonl" --steps "$steps" \
  --batch-size 5 --learning-rate 5e-3 --dropout 0.05 > /dev/null
# A checkpoint is there: kill -9.
while ! ls "$dir"/state/jobs/job-1/output.training/step-* > /dev/null 2>&1; do
  kill -0 "$server" 2> /dev/null || fail "the server ended"
done
kill -9 "$server"
wait "$server" 2> /dev/null || true
grep -q '"state": "succeeded"' "$dir/state/jobs/job-1/record.json" &&
  fail "the job ended before the kill"

start
"$lorikeet" job watch job-1 2> /dev/null | grep -q 'succeeded .* up@1' ||
  fail "the job does not succeed"
grep -q 'training job starts.*done="[1-9]' "$dir/serve.err" ||
  fail "the job did not go on from a checkpoint"
answer=$("$lorikeet" generate --task up --prompt "Word: apple
Answer:" --max-tokens 10)
[ "$answer" = " APPLE" ] || fail "the version answers '$answer'"
"$lorikeet" job cancel job-1 2> "$dir/error" && fail "an ended job is cancelled"
grep -q 'JOB_ENDED' "$dir/error" || fail "$(cat "$dir/error")"

"$lorikeet" train --model "$model" --data "$dir/train.jsonl" --steps "$steps" \
  --batch-size 5 --learning-rate 5e-3 --dropout 0.05 --token-budget 64 \
  --threads 2 --device "$device" --output "$dir/alone" 2> /dev/null
cmp "$dir/alone/adapter_model.safetensors" \
  "$dir"/state/adapters/*/adapter_model.safetensors ||
  fail "the job's adapter is not the one of lorikeet train"
