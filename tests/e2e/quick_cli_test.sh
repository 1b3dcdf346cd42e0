#!/usr/bin/env bash
# The commands of `lorikeet` from outside, on the demo model: answers, exit codes
# and messages. Usage: quick_cli_test.sh LORIKEET SOURCE_DIR

set -euo pipefail
lorikeet=$(realpath "$1")
cd "$2"
work=$(mktemp -d)
server_pid=

clean_up() {
  local code=$?
  trap - EXIT
  if [[ -n "$server_pid" ]]; then
    kill -KILL "$server_pid" 2>/dev/null || true
  fi
  ((code == 0)) || cat "$work"/*.log 2>/dev/null || true
  rm -rf "$work"
  exit "$code"
}
trap clean_up EXIT

# expect WHAT ACTUAL EXPECTED
expect() {
  if [[ "$2" != "$3" ]]; then
    printf 'FAILED: %s\n  is:       %s\n  expected: %s\n' "$1" "$2" "$3" >&2
    exit 1
  fi
  echo "good: $1"
}

# refuses WHAT TEXT COMMAND...: the command fails, its message has TEXT.
refuses() {
  local what=$1 text=$2 code=0
  shift 2
  "$@" >"$work/out" 2>"$work/err" </dev/null || code=$?
  if ((code == 0 || code >= 126)) || ! grep -qF -- "$text" "$work/err"; then
    printf 'FAILED: %s: exit code %d, message:\n' "$what" "$code" >&2
    cat "$work/err" >&2
    exit 1
  fi
  echo "good: $what is refused"
}

prompt() { printf 'Word: %s\nAnswer:' "$1"; }

# ---- tokenize ----------------------------------------------------------------
ids=$(echo 'Word: parrot' | "$lorikeet" tokenize --tokenizer demo/base)
expect "text comes back from its ids" \
  "$("$lorikeet" tokenize --tokenizer demo/base --detokenize <<<"$ids")" \
  '{"text": "Word: parrot"}'
refuses "a directory without tokenizer.json" tokenizer.json \
  "$lorikeet" tokenize --tokenizer demo/adapters

# ---- run ---------------------------------------------------------------------
cat >"$work/requests.jsonl" <<'JSON'
{"id": "a", "prompt": "Word: parrot\nAnswer:", "adapter": "reverse"}
{"id": "b", "prompt": "Word: parrot\nAnswer:"}
{"id": "c", "prompt": "Word: parrot\nAnswer:", "adapter": "upper"}
JSON
run=("$lorikeet" run --model demo/base --adapter reverse=demo/adapters/reverse
  --adapter upper=demo/adapters/upper)
"${run[@]}" <"$work/requests.jsonl" >"$work/results.jsonl"
expect "run answers in the order of the input" \
  "$(sed -E 's/.*"id": "(.)", "text": "([^"]*)".*/\1\2/' "$work/results.jsonl" |
    tr '\n' '|')" "a torrap|b Unknown.|c PARROT|"
"${run[@]}" --admit-seed 3 --threads 1 --max-num-batched-tokens 5 \
  <"$work/requests.jsonl" >"$work/again.jsonl"
expect "another order, one thread and small chunks change nothing" \
  "$(sed -E 's/"cached_tokens": [0-9]+/"cached_tokens": 0/' \
    "$work/again.jsonl" | md5sum)" \
  "$(sed -E 's/"cached_tokens": [0-9]+/"cached_tokens": 0/' \
    "$work/results.jsonl" | md5sum)"
refuses "a model that is not there" "there is no model directory" \
  "$lorikeet" run --model "$work/none"
refuses "an unknown flag" --no-such-flag "$lorikeet" run --no-such-flag

# The numbers of the CPU backend. What a CPU cannot do is refused by name.
answers() { sed 's/.*"text": "\([^"]*\)".*/\1/' "$1"; }
run_demo() {
  "$lorikeet" run --model demo/base --adapter reverse=demo/adapters/reverse \
    --adapter upper=demo/adapters/upper --log-level error "$@" \
    <"$work/requests.jsonl"
}
run_demo >"$work/exact.jsonl"
run_demo --dtype int8 --state-dir "$work/state" >"$work/int8.jsonl"
expect "int8 gives the demo's answers" "$(answers "$work/int8.jsonl")" \
  "$(answers "$work/exact.jsonl")"
run_demo --dtype int8 --state-dir "$work/state" >"$work/again.jsonl"
expect "cached int8 weights give the same" "$(cat "$work/again.jsonl")" \
  "$(cat "$work/int8.jsonl")"
expect "they are kept" "$(find "$work/state/packed" -name '*-int8-*' | wc -l)" 1
LORIKEET_SIMD=scalar run_demo >"$work/scalar.jsonl"
expect "the slowest target gives the demo's answers" \
  "$(answers "$work/scalar.jsonl")" "$(answers "$work/exact.jsonl")"
run_demo --pin-threads --no-huge-pages --threads 7 >"$work/threads.jsonl"
expect "more threads than cores give the same bits" \
  "$(cat "$work/threads.jsonl")" "$(cat "$work/exact.jsonl")"
refuses "an unknown instruction set" LORIKEET_SIMD \
  env LORIKEET_SIMD=mmx "$lorikeet" run --model demo/base
refuses "bf16 dot products without AVX512-BF16" "compute dtype bf16" \
  env LORIKEET_SIMD=scalar "$lorikeet" run --model demo/base \
  --compute-dtype bf16
refuses "bf16 dot products over int8 weights" "bf16" \
  "$lorikeet" run --model demo/base --compute-dtype bf16 --dtype int8

# Merged weights: by an operation, by the request, by the policy.
cat >"$work/merges.jsonl" <<'JSON'
{"id": "a", "prompt": "Word: parrot\nAnswer:", "adapter": "reverse"}
{"op": "merge", "adapter": "reverse"}
{"id": "b", "prompt": "Word: parrot\nAnswer:", "adapter": "reverse"}
{"id": "c", "prompt": "Word: parrot\nAnswer:", "adapter": "upper"}
{"op": "unmerge", "adapter": "reverse"}
{"id": "d", "prompt": "Word: parrot\nAnswer:", "adapter": "reverse"}
{"id": "e", "prompt": "Word: parrot\nAnswer:", "adapter": "upper", "variant": "merged"}
{"id": "f", "prompt": "Word: parrot\nAnswer:"}
JSON
variants() {
  sed -nE 's/.*"id": "(.)", "text": "([^"]*)".*/\1\2 &/p' |
    sed -E 's/ \{.*"variant": "merged".*/ merged/; s/ \{.*//' | tr '\n' '|'
}
run_merges() {
  "$lorikeet" run --model demo/base --adapter reverse=demo/adapters/reverse \
    --adapter upper=demo/adapters/upper --log-level error "$@"
}
expect "merge and unmerge hold for the requests after them" \
  "$(run_merges <"$work/merges.jsonl" | variants)" \
  "a torrap|b torrap merged|c PARROT|d torrap|e PARROT merged|f Unknown.|"
expect "run --merge always merges every adapter" \
  "$(run_merges --merge always <"$work/requests.jsonl" | variants)" \
  "a torrap merged|b Unknown.|c PARROT merged|"
refuses "merging without a place for it" --max-merged \
  run_merges --merge auto --max-merged 0
merge_none() { echo '{"op": "merge", "adapter": "none"}' | run_merges; }
refuses "merging an adapter that is not there" none merge_none

# ---- serve -------------------------------------------------------------------
refuses "a host beyond loopback" --insecure \
  "$lorikeet" serve --model demo/base --host 0.0.0.0 --grpc-port 0 \
  --state-dir "$work/state"
"$lorikeet" serve --model demo/base --adapter-root demo --grpc-port 0 \
  --state-dir "$work/state" >"$work/serve.out" 2>"$work/serve.log" &
server_pid=$!
for ((i = 0; i < 600; i++)); do
  grep -q '^ready grpc=' "$work/serve.out" && break
  kill -0 "$server_pid"
  sleep 0.1
done
LORIKEET_SERVER=$(sed -n 's/^ready grpc=//p' "$work/serve.out")
export LORIKEET_SERVER

"$lorikeet" adapter register caesar demo/adapters/caesar >/dev/null
"$lorikeet" adapter register copy --upload demo/adapters/upper >/dev/null
expect "the base answers" \
  "$("$lorikeet" generate --task base --prompt "$(prompt parrot)")" " Unknown."
expect "an adapter answers" \
  "$("$lorikeet" generate --task caesar --prompt "$(prompt parrot)")" " sduurw"
expect "an uploaded adapter answers" \
  "$("$lorikeet" generate --task copy --prompt "$(prompt parrot)" --stream)" \
  " PARROT"
"$lorikeet" adapter update caesar demo/adapters-v2/caesar >/dev/null
"$lorikeet" adapter alias cipher caesar@1 >/dev/null
expect "new requests take the new version" \
  "$("$lorikeet" generate --task caesar --prompt "$(prompt parrot)")" " ufwwty"
expect "the alias keeps the old one" \
  "$("$lorikeet" generate --task cipher --prompt "$(prompt parrot)")" " sduurw"
"$lorikeet" adapter alias cipher --canary caesar@2=100 >/dev/null
expect "a canary of all requests answers" \
  "$("$lorikeet" generate --task cipher --prompt "$(prompt parrot)" \
    --routing-key ada)" " ufwwty"
"$lorikeet" adapter alias cipher --rollback --reason "worse" >/dev/null
expect "a roll back takes it back" \
  "$("$lorikeet" generate --task cipher --prompt "$(prompt parrot)")" " sduurw"
"$lorikeet" adapter alias cipher --promote caesar@2 >/dev/null
expect "a promotion gives all to one" \
  "$("$lorikeet" generate --task cipher --prompt "$(prompt parrot)")" " ufwwty"
expect "the trail tells it" \
  "$("$lorikeet" adapter audit cipher --output json | grep -c '"action"')" "4"
refuses "a promotion of an unknown version" NOT_FOUND \
  "$lorikeet" adapter alias cipher --promote caesar@9
refuses "weights that sum to 0" INVALID_ARGUMENT \
  "$lorikeet" adapter alias cipher --split caesar@1=0 --split caesar@2=0
refuses "an alias to an alias" INVALID_ARGUMENT \
  "$lorikeet" adapter alias other cipher
expect "nothing is merged unless somebody says so" \
  "$("$lorikeet" merged)" "Policy never, at most 1 merged at once."
"$lorikeet" adapter merge-policy caesar always >/dev/null
expect "an adapter's policy gives it merged weights" \
  "$("$lorikeet" generate --task caesar --prompt "$(prompt parrot)")" " ufwwty"
expect "merged tells what is merged" \
  "$("$lorikeet" merged | sed -nE 's/^(caesar@2) +(merged) .*/\1 \2/p')" \
  "caesar@2 merged"
expect "the base is what it was" \
  "$("$lorikeet" merged --verify-base | cut -d: -f1)" "The base is intact"
refuses "an unknown policy" policy \
  "$lorikeet" adapter merge-policy caesar sometimes
refuses "a merged variant of the base" INVALID_ARGUMENT \
  "$lorikeet" generate --task base --prompt x --variant merged
refuses "an unknown task" NOT_FOUND \
  "$lorikeet" generate --task none --prompt x
refuses "a name that is taken" ALREADY_EXISTS \
  "$lorikeet" adapter register caesar demo/adapters/caesar
refuses "a path outside of the roots" PERMISSION_DENIED \
  "$lorikeet" adapter register outside "$work"
refuses "a state directory in use" "state" \
  "$lorikeet" serve --model demo/base --grpc-port 0 --state-dir "$work/state"
"$lorikeet" adapter delete copy >/dev/null
refuses "an adapter that was deleted" NOT_FOUND \
  "$lorikeet" generate --task copy --prompt x

kill -TERM "$server_pid"
code=0
wait "$server_pid" || code=$?
server_pid=
expect "SIGTERM ends with exit code" "$code" 0
echo "all good"
