#!/usr/bin/env bash
# What can be known about the CUDA backend on a machine with a GPU, in one call.
# Lies in the folder that package.sh --with-tests makes. See --help.

set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'TEXT'
Usage: gpu-check.sh [--model DIR] [--output DIR] [--minutes N]

Runs on this machine's GPU, the cheap first, and ends within the minutes:

  device       what it is; the demo's answer, if the demo is here
  intrinsics   what each function of the device gives, against a table
  conformance  every operator against the reference, odd shapes, both modes
  goldens      models and adapters against transformers and peft, if
               $LORIKEET_SHARED names their folder
  sanitizer    compute-sanitizer's memcheck and racecheck, if it is installed
  speed        decode and prefill of 1.1B shapes with made-up weights, or of
               --model: base, one adapter, distinct adapters

Writes gpu-check.json and gpu-check.txt to --output (default: this folder) and
prints the table. The exit code is 1 if a check failed.

  --model DIR   a base model for the speed
  --output DIR  where the results go
  --minutes N   most time of it all (default 8)
TEXT
}

model='' output=$here minutes=8
while (($# > 0)); do
  case "$1" in
    --model) model=${2:?--model needs a folder}; shift 2 ;;
    --output) output=${2:?--output needs a folder}; shift 2 ;;
    --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "unknown argument: $1" >&2; usage >&2; exit 2 ;;
  esac
done

readonly BUDGET_S=$((60 * minutes))
mkdir -p "$output"
export LORIKEET_TEST_CUDA=${LORIKEET_TEST_CUDA:-$here/liblorikeet_cuda.so}
export LORIKEET_BINARY_DIR=$here
export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
device=${LORIKEET_TEST_DEVICE:-cuda}
rows=()
failed=0

# check GROUP NAME COMMAND...: one row; the command's output goes to a log.
check() {
  local group=$1 name=$2 start=$SECONDS left=$((BUDGET_S - SECONDS)) result
  local log="$output/$group-$name.log"
  shift 2
  if ((left <= 0)); then
    result="left out"
  elif timeout "$left" "$@" >"$log" 2>&1; then
    result=good
  elif (($? == 124)); then
    result="out of time"
  else
    result=FAILED
    failed=1
  fi
  rows+=("$group|$name|$result|$((SECONDS - start))")
  printf '%-12s %-24s %-12s %4d s\n' "$group" "$name" "$result" \
    $((SECONDS - start))
}

operators=("$here"/tests/kernels_*_test)
filter='--gtest_filter=*/cuda:*/cuda_invariant'

if command -v nvidia-smi >/dev/null; then
  check device nvidia-smi nvidia-smi
fi
if [[ -d "$here/demo" ]]; then
  # shellcheck disable=SC2016  # for the inner shell
  check device demo bash -c '
    printf "%s\n" "{\"prompt\": \"Word: lorikeet\\nAnswer:\", \"adapter\": \"upper\"}" |
      "$0/lorikeet" run --model "$0/demo/base" \
        --adapter "upper=$0/demo/adapters/upper" --device "$1" |
      grep LORIKEET' "$here" "$device"
fi
if [[ "$device" == cuda && -x "$here/tests/cuda_intrinsics_test" ]]; then
  check intrinsics table "$here/tests/cuda_intrinsics_test"
fi
for test in "${operators[@]}"; do
  [[ -x "$test" ]] || continue
  check conformance "$(basename "$test" _test)" "$test" "$filter"
done
if [[ -n "${LORIKEET_SHARED:-}" && -x "$here/tests/cuda_on_host_test" ]]; then
  LORIKEET_TEST_DEVICE=$device check goldens goldens \
    "$here/tests/cuda_on_host_test" '--gtest_filter=*MatchPeft*:*BatchInvariant*'
fi
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    for operator in lora attention gemm sample; do
      test=$here/tests/kernels_${operator}_test
      [[ -x "$test" ]] || continue
      check sanitizer "$tool-$operator" compute-sanitizer --tool "$tool" \
        --error-exitcode 1 "$test" "$filter"
    done
  done
else
  rows+=("sanitizer|compute-sanitizer|not installed|0")
fi

if [[ -z "$model" ]]; then
  model=$output/shapes-1.1b
  mkdir -p "$model"
  cat >"$model/config.json" <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama",
 "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632,
 "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
 "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu",
 "torch_dtype": "bfloat16", "tie_word_embeddings": false, "eos_token_id": 2,
 "bos_token_id": 1}
JSON
  load=(--load-format dummy)
else
  load=()
fi
for mode in "" --batch-invariant; do
  # shellcheck disable=SC2086  # an empty mode is no argument
  check speed "decode${mode#-}" "$here/lorikeet" bench engine --model "$model" \
    "${load[@]}" --device "$device" --batch 1,8,32 --ranks 16 $mode --json
done

{
  printf 'group        check                    result       seconds\n'
  for row in "${rows[@]}"; do
    IFS='|' read -r group name result seconds <<<"$row"
    printf '%-12s %-24s %-12s %7d\n' "$group" "$name" "$result" "$seconds"
  done
} >"$output/gpu-check.txt"
{
  printf '{"date": "%s", "device": "%s", "checks": [' "$(date -uIseconds)" \
    "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader \
      2>/dev/null | head -n 1)"
  separator=''
  for row in "${rows[@]}"; do
    IFS='|' read -r group name result seconds <<<"$row"
    printf '%s\n {"group": "%s", "check": "%s", "result": "%s", "seconds": %d}' \
      "$separator" "$group" "$name" "$result" "$seconds"
    separator=,
  done
  printf '],\n "speed": {'
  separator=''
  for mode in decode decode-batch-invariant; do
    file=$output/speed-$mode.log
    grep -q '^{' "$file" 2>/dev/null || continue
    printf '%s"%s": %s' "$separator" "$mode" "$(sed -n '/^{/,$p' "$file")"
    separator=,
  done
  printf '}}\n'
} >"$output/gpu-check.json"
echo "$output/gpu-check.json and gpu-check.txt have the results"
exit "$failed"
