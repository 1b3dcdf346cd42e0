#!/usr/bin/env bash
# compile.sh REPORT COMMAND...: runs the compiler and keeps what ptxas says of
# registers, stack and shared memory in REPORT, which a test compares with
# budgets.txt. Errors are printed.
set -euo pipefail
report=$1
shift
if ! "$@" 2>"$report"; then
  cat "$report" >&2
  exit 1
fi
