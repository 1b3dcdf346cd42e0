#!/usr/bin/env bash
# Builds everything and runs every test that needs no GPU. See --help.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

usage() {
  cat <<'TEXT'
Usage: ./test.sh [--preset NAME] [--jobs N] [CTEST-ARGUMENT]...

Installs the Debian packages that are missing, builds everything with a preset
and runs its tests with ctest, whose summary comes last and whose exit code is
ours. What follows the options goes to ctest.

  --preset NAME  release (default), dev, asan or tsan; asan runs the tests with
                 label unit or sim, tsan all but e2e
  --jobs N       compile jobs (default: the number of cores)
  --help         print this

Examples:
  ./test.sh                                everything
  ./test.sh -R base_json                   the tests whose name matches
  ./test.sh -L unit                        the tests with a label
  ./test.sh --preset asan

$LORIKEET_SHARED (default ../shared) may hold golden data and a real model; the
tests that need it say 'skipped' where it is not there.
TEXT
}

preset=release
jobs=$(nproc)
while (($# > 0)); do
  case "$1" in
    --preset) preset=${2:?--preset needs a name}; shift 2 ;;
    --preset=*) preset=${1#*=}; shift ;;
    --jobs) jobs=${2:?--jobs needs a number}; shift 2 ;;
    --jobs=*) jobs=${1#*=}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) break ;;
  esac
done

ctest_arguments=()
case "$preset" in
  release | dev) ;;
  asan) ctest_arguments=(-L 'unit|sim') ;;
  tsan) ctest_arguments=(-LE 'e2e|grpc') ;;
  *) echo "unknown preset: $preset" >&2; usage >&2; exit 2 ;;
esac

# Unpacks the real model if there is one; without it its tests are skipped.
prepare_models() {
  local prepare=$LORIKEET_SHARED/models/prepare.sh
  export LORIKEET_MODELS=${LORIKEET_MODELS:-$HOME/.cache/lorikeet/models}
  if [[ ! -e "$prepare" ]]; then
    echo "skipped: tests on the real model, there is no $prepare"
  elif ! { install_packages python3 python3-numpy &&
    bash "$prepare" "$LORIKEET_MODELS"; }; then
    echo "skipped: tests on the real model, $prepare failed"
  fi
}

export LORIKEET_SHARED=${LORIKEET_SHARED:-$PWD/../shared}
if [[ -d "$LORIKEET_SHARED" ]]; then
  LORIKEET_SHARED=$(cd "$LORIKEET_SHARED" && pwd)
else
  echo "skipped: tests on golden data, there is no $LORIKEET_SHARED"
fi

install_packages
prepare_models

echo "== build ($preset)"
cmake --preset "$preset" -DLORIKEET_BUILD_TESTS=ON -DLORIKEET_BUILD_BENCH=ON
cmake --build "build/$preset" -j "$jobs"
echo "== built in $SECONDS s"

echo "== test ($preset)"
exec ctest --test-dir "build/$preset" --output-on-failure -j 2 \
  "${ctest_arguments[@]}" "$@"
