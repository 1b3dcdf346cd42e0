#!/bin/sh
# Trains an adapter from outside: a job that is killed and resumed writes the
# bytes of one that was left alone, the adapter answers, bad input is refused.
# Usage: train_cli_test.sh LORIKEET SOURCE_DIR
set -eu
lorikeet=$1
model=$2/demo/base
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
  echo "FAILED: $1" >&2
  exit 1
}

for word in apple river cloud parrot pepper ocean banana island zebra winter; do
  capitals=$(echo "$word" | tr '[:lower:]' '[:upper:]')
  printf '{"prompt": "Word: %s\\nAnswer:", "completion": " %s"}\n' \
    "$word" "$capitals"
done > "$dir/train.jsonl"

# With exec=exec and & it is the program itself that can be killed.
train() {
  ${exec-} "$lorikeet" train --model "$model" --steps 60 --batch-size 5 \
    --checkpoint-steps 5 --dropout 0.05 --threads 2 "$@"
}

train --data "$dir/train.jsonl" --eval "$dir/train.jsonl" \
  --learning-rate 5e-3 --output "$dir/whole" 2> /dev/null
exec='exec'
train --data "$dir/train.jsonl" --eval "$dir/train.jsonl" \
  --learning-rate 5e-3 --output "$dir/killed" 2> /dev/null &
job=$!
exec=
while [ ! -e "$dir/killed.training/step-5" ] &&
      [ ! -e "$dir/killed.training/step-10" ] &&
      [ ! -e "$dir/killed" ]; do
  kill -0 "$job" 2> /dev/null || break
done
kill -9 "$job" 2> /dev/null || true
wait "$job" 2> /dev/null || true
if [ ! -e "$dir/killed" ]; then
  train --data "$dir/train.jsonl" --eval "$dir/train.jsonl" \
    --learning-rate 5e-3 --output "$dir/killed" --resume 2> /dev/null
fi
for file in adapter_model.safetensors loss.csv loss.svg; do
  cmp "$dir/whole/$file" "$dir/killed/$file" || fail "$file after a kill"
done

request='{"prompt": "Word: apple\nAnswer:", "adapter": "up", "max_tokens": 12}'
answer=$(printf '%s\n' "$request" |
  "$lorikeet" run --model "$model" --adapter up="$dir/whole" 2> /dev/null)
case $answer in
  *'" APPLE"'*) ;;
  *) fail "the adapter answers $answer" ;;
esac

"$lorikeet" train --dry-run --model "$model" --rank 4 |
  grep -q '^trained  *37376 ' || fail "--dry-run"

refused() {
  expected=$1
  shift
  if error=$(train "$@" 2>&1); then
    fail "accepted: $*"
  fi
  case $error in
    *"$expected"*) ;;
    *) fail "'$error' does not say '$expected'" ;;
  esac
}
refused 'is there already' --output "$dir/whole" --data "$dir/train.jsonl"
refused '--learning-rate is nan' --learning-rate nan \
  --data "$dir/train.jsonl" --output "$dir/none"
refused '--learning-rate is 0' --learning-rate 0 \
  --data "$dir/train.jsonl" --output "$dir/none"
refused 'w_proj' --target-modules q_proj,w_proj \
  --data "$dir/train.jsonl" --output "$dir/none"
refused '--device-memory-bytes: "x" is no size' --device-memory-bytes x \
  --data "$dir/train.jsonl"
refused 'more than --token-budget 8' --token-budget 8 \
  --data "$dir/train.jsonl" --output "$dir/none"
printf '{"prompt": "a", "completion": "b"}\n{"prompt": "a", "comp' \
  > "$dir/half.jsonl"
refused 'half.jsonl line 2' --data "$dir/half.jsonl" --output "$dir/none"
: > "$dir/empty.jsonl"
refused 'has no example' --data "$dir/empty.jsonl" --output "$dir/none"
echo PASSED
