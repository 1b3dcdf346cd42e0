#!/usr/bin/env bash
# From a fresh clone to answers: installs what is missing, builds lorikeet,
# starts it on the demo model and shows what it does. See --help.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

usage() {
  cat <<'EOF'
Usage: ./quickstart.sh [--keep] [--help]

Installs the Debian packages that are missing, builds the `lorikeet` command,
starts a server on the demo model in demo/, registers its adapters, asks all of
them at once, swaps one while a stream runs on its old version, and stops
everything. The first run takes minutes, the next ones seconds.

  --keep   leave the server running and say how to call it
  --help   print this

Everything it writes is below build/. Exit code 0: all answers were right.
EOF
}

keep=false
for argument in "$@"; do
  case "$argument" in
    --keep) keep=true ;;
    -h | --help) usage; exit 0 ;;
    *) echo "unknown argument: $argument" >&2; usage >&2; exit 2 ;;
  esac
done

readonly STEPS=5
readonly LORIKEET=build/release/lorikeet
readonly READY_SECONDS=120
run_dir=
server_pid=
build_pid=
step=0

# Ends what is still running; keeps the logs if something went wrong.
clean_up() {
  local code=$?
  trap - EXIT INT TERM
  if [[ -n "$build_pid" ]]; then
    kill "$build_pid" 2>/dev/null || true
  fi
  if [[ -n "$server_pid" ]]; then
    kill "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
  fi
  if [[ -n "$run_dir" ]]; then
    if ((code == 0)); then
      rm -rf "$run_dir"
    else
      echo "The server's log is $run_dir/server.log" >&2
    fi
  fi
  exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

begin_step() {
  step=$((step + 1))
  step_start=$SECONDS
  echo "[$step/$STEPS] $1"
}

end_step() {
  echo "      done in $((SECONDS - step_start)) s"
}

# Shows how far a build is, by the last line of its log: in place on a terminal,
# else now and then.
show_progress() {
  local log=$1 pid=$2 last='' line='' shown=$SECONDS
  while kill -0 "$pid" 2>/dev/null; do
    line=$(tail -n 1 "$log" 2>/dev/null | tr -d '\r' | cut -c 1-70)
    if [[ -t 1 ]]; then
      printf '\r      %-70s' "$line"
    elif ((SECONDS - shown >= 15)) && [[ "$line" != "$last" ]]; then
      echo "      $line"
      shown=$SECONDS
      last=$line
    fi
    sleep 0.3
  done
  if [[ -t 1 ]]; then
    printf '\r%-76s\r' ''
  fi
}

# Runs a command with its output in a log, which is shown if it fails.
run_logged() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 &
  build_pid=$!
  show_progress "$log" "$build_pid"
  local code=0
  wait "$build_pid" || code=$?
  build_pid=
  if ((code != 0)); then
    echo "failed: $*" >&2
    tail -n 40 "$log" >&2
    echo "The whole log is $log" >&2
    exit 1
  fi
}

build() {
  mkdir -p build
  if [[ ! -f build/release/build.ninja ]]; then
    run_logged build/quickstart-configure.log cmake --preset release
  fi
  NINJA_STATUS='[%f/%t, %e s] ' run_logged build/quickstart-build.log \
    cmake --build build/release --target lorikeet
}

# Prints the address of the ready line, or fails if the server ends first.
wait_until_ready() {
  local deadline=$((SECONDS + READY_SECONDS)) address
  while ((SECONDS < deadline)); do
    address=$(sed -n 's/.*ready grpc=\([^ ]*\).*/\1/p' "$run_dir/server.out")
    if [[ -n "$address" ]]; then
      echo "${address%%$'\n'*}"
      return 0
    fi
    if ! kill -0 "$server_pid" 2>/dev/null; then
      echo "the server ended before it was ready:" >&2
      tail -n 20 "$run_dir/server.log" >&2
      return 1
    fi
    sleep 0.05
  done
  echo "the server was not ready within $READY_SECONDS s" >&2
  return 1
}

start_server() {
  mkdir -p build
  run_dir=$(mktemp -d build/quickstart.XXXXXX)
  : >"$run_dir/server.out"
  local -a detach=()
  if $keep; then
    detach=(setsid)
  fi
  "${detach[@]}" "$LORIKEET" serve --model demo/base --grpc-port 0 \
    --state-dir "$run_dir/state" --adapter-root demo \
    >"$run_dir/server.out" 2>"$run_dir/server.log" </dev/null &
  server_pid=$!
  address=$(wait_until_ready)
  echo "      lorikeet serve on $address"
}

say_how_to_call() {
  cat <<EOF

The server keeps running on $address. Try:

  export LORIKEET_SERVER=$address
  $LORIKEET adapter list
  $LORIKEET generate --task reverse --prompt \$'Word: lorikeet\nAnswer:'
  $LORIKEET generate --task upper --prompt \$'Word: lorikeet\nAnswer:' --stream -v
  $LORIKEET bench serve --demo-dir demo --popularity zipf --concurrency 8
  kill $server_pid       # stops it; its state and logs are in $run_dir
EOF
}

begin_step "packages"
install_packages
end_step

begin_step "build of $LORIKEET (log: build/quickstart-build.log)"
build
end_step

begin_step "server on the demo model"
start_server
end_step

begin_step "demo"
echo
"$LORIKEET" demo --demo-dir demo --server "$address"
end_step

if $keep; then
  begin_step "server is kept"
  say_how_to_call
  server_pid=
  run_dir=
else
  begin_step "stop"
  kill "$server_pid"
  code=0
  wait "$server_pid" || code=$?
  server_pid=
  if ((code != 0)); then
    echo "the server ended with exit code $code" >&2
    exit 1
  fi
  end_step
fi
echo "All done in $SECONDS s."
