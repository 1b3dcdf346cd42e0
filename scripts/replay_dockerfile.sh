#!/usr/bin/env bash
# Replays the Dockerfile without Docker: a debootstrap root per stage, COPY and
# RUN in it, and then what a container engine would do with the image. See
# --help.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

usage() {
  cat <<'TEXT'
Usage: scripts/replay_dockerfile.sh [--keep] [TARGET]

Replays the stages of the Dockerfile that TARGET (default: cpu) needs, each in a
root of its own made by debootstrap, and checks the result: no build tools in
it, no library missing, no listed package unused; its command starts as its
user, the health check passes and a prompt is answered.

Needs root and a Debian system, whose own package sources are used. Works below
build/replay; the empty Debian root is kept there for the next time.

  --keep   leave the roots in build/replay
TEXT
}

keep=false
target=cpu
for argument in "$@"; do
  case "$argument" in
    --keep) keep=true ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) target=$argument ;;
  esac
done

if ((EUID != 0)); then
  echo "replay: needs root (debootstrap, chroot)" >&2
  exit 1
fi
# Mounts made below vanish with this process, and the image gets a network
# without a way out, in which its port is free.
if [[ -z "${LORIKEET_REPLAY_INSIDE:-}" ]]; then
  install_packages debootstrap iproute2
  LORIKEET_REPLAY_INSIDE=replay exec unshare --mount --propagation private \
    bash scripts/replay_dockerfile.sh "$@"
fi

readonly WORK=$PWD/build/replay
readonly BASE=$WORK/debian
readonly RUN_SECONDS=60
server_pid=

clean_up() {
  local code=$?
  trap - EXIT INT TERM
  if [[ -n "$server_pid" ]]; then
    kill "$server_pid" 2>/dev/null || true
  fi
  if ! $keep; then
    rm -rf --one-file-system "$WORK"/stage.* "$WORK/context"
  fi
  exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { echo "replay: $*"; }
die() { echo "replay: $*" >&2; exit 1; }

# ---- roots -------------------------------------------------------------------

# Prints the first mirror that this system itself uses for Debian.
mirror() {
  cat /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null |
    sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+).*/\2/p' |
    head -n 1
}

make_base() {
  local suite=$1
  if [[ -e "$BASE/.complete-$suite" ]]; then
    return
  fi
  rm -rf --one-file-system "$BASE"
  say "debootstrap $suite"
  debootstrap --variant=minbase "$suite" "$BASE" "$(mirror)" \
    >"$WORK/debootstrap.log" 2>&1 ||
    { tail -n 20 "$WORK/debootstrap.log" >&2; die "debootstrap failed"; }
  # The same sources as here: security updates, a proxy if there is one.
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    if [[ -e "$file" ]]; then
      : >"$BASE/etc/apt/sources.list"
    fi
  done
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources \
    $(grep -ls '^Acquire::' /etc/apt/apt.conf.d/* || true); do
    if [[ -e "$file" ]]; then
      cp "$file" "$BASE$file"
    fi
  done
  touch "$BASE/.complete-$suite"
}

# What COPY copies from: the tree without what .dockerignore names.
make_context() {
  local -a exclude=()
  local line
  while read -r line; do
    case "$line" in
      '' | '#'*) ;;
      '**/'*) exclude+=(--no-anchored "--exclude=${line#**/}") ;;
      *) exclude+=(--anchored "--exclude=./$line") ;;
    esac
  done <.dockerignore
  rm -rf "$WORK/context"
  mkdir -p "$WORK/context"
  tar -cf - "${exclude[@]}" . | tar -xf - -C "$WORK/context"
}

# ---- instructions ------------------------------------------------------------

declare -A root_of=()
environment=()
stage='' rootfs='' workdir=/ user=root
entrypoint='' command='' healthcheck='' listed_packages=''

# Prints the instructions one a line, continuation lines joined, no comments.
instructions() {
  sed -e '/^[[:space:]]*#/d' Dockerfile |
    sed -e ':more' -e '/\\$/{N; s/\\\n[[:space:]]*/ /; b more}' |
    sed -e '/^[[:space:]]*$/d'
}

# Prints the stages that $target needs, itself included.
needed_stages() {
  instructions | awk -v target="$target" '
    $1 == "FROM" { stage = $4; from[stage] = $2 }
    $1 == "COPY" && $2 ~ /^--from=/ { needs[stage] = needs[stage] " " \
        substr($2, 8) }
    function add(s,   list, n, i) {
      if (!(s in from) || s in seen) return
      seen[s] = 1
      add(from[s])
      n = split(needs[s], list, " ")
      for (i = 1; i <= n; i++) add(list[i])
      print s
    }
    END { if (!(target in from)) exit 1; add(target) }'
}

# Prints the strings of a JSON list, one a line.
json_list() { grep -oE '"[^"]*"' <<<"$1" | sed 's/^"//; s/"$//'; }

# run_in USER COMMAND...; with $replace set it takes the shell's place.
run_in() {
  local as=$1
  shift
  ${replace:+exec} chroot --userspec="$as" "$rootfs" /usr/bin/env -i \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    "${environment[@]}" "$@"
}

# What a stage hands on beside its root.
readonly CONFIG=(environment workdir user entrypoint command healthcheck
  listed_packages)

save_config() {
  [[ -z "$stage" ]] || declare -p "${CONFIG[@]}" |
    sed 's/^declare -/declare -g -/; s/^declare -g --/declare -g/' \
      >"$WORK/config.$stage"
}

do_from() {
  local image=$1 name=$3
  save_config
  stage=$name
  rootfs=$WORK/stage.$name
  workdir=/ user=root entrypoint='' command='' healthcheck=''
  environment=()
  rm -rf --one-file-system "$rootfs"
  if [[ -n "${root_of[$image]:-}" ]]; then
    cp -a "${root_of[$image]}" "$rootfs"
    # shellcheck disable=SC1090  # written above
    source "$WORK/config.$image"
  else
    local suite=${image#debian:}
    make_base "${suite%-slim}"
    cp -a "$BASE" "$rootfs"
    cp /etc/resolv.conf /etc/hosts "$rootfs/etc/"
    # A certificate authority of this system's own, for when pip asks.
    mkdir -p "$rootfs/usr/local/share/ca-certificates"
    cp -a /usr/local/share/ca-certificates/. \
      "$rootfs/usr/local/share/ca-certificates/" 2>/dev/null || true
  fi
  root_of[$name]=$rootfs
}

do_copy() {
  local from=$WORK/context
  if [[ "$1" == --from=* ]]; then
    from=${root_of[${1#--from=}]}
    shift
  fi
  local -a sources=("${@:1:$#-1}")
  local destination=${!#} source path
  [[ "$destination" == /* ]] || destination=$workdir/$destination
  for source in "${sources[@]}"; do
    path=$from/$source
    [[ -e "$path" ]] || die "COPY: there is no $source"
    if [[ -d "$path" ]]; then
      mkdir -p "$rootfs$destination"
      cp -a "$path/." "$rootfs$destination/"
    elif [[ "$destination" == */ || "$destination" == */. ]]; then
      mkdir -p "$rootfs$destination"
      cp -a "$path" "$rootfs$destination/"
    else
      mkdir -p "$(dirname "$rootfs$destination")"
      cp -a "$path" "$rootfs$destination"
    fi
  done
  chown -R -h root:root "$rootfs$destination"
}

do_run() {
  local code=0
  mount -t proc proc "$rootfs/proc"
  run_in "$user" /bin/sh -c "cd '$workdir' && $1" >>"$WORK/$stage.log" 2>&1 ||
    code=$?
  umount -l "$rootfs/proc"
  if ((code != 0)); then
    tail -n 40 "$WORK/$stage.log" >&2
    die "RUN failed; the whole log is $WORK/$stage.log"
  fi
  if [[ "$stage" == "$target" && "$1" == *"apt-get install"* ]]; then
    listed_packages=$(sed 's/.*--no-install-recommends//; s/&&.*//' <<<"$1")
  fi
}

replay() {
  local needed instruction rest is_needed=false start
  local -a words
  needed=" $(needed_stages | tr '\n' ' ') " ||
    die "the Dockerfile has no target $target"
  while read -r instruction rest; do
    read -ra words <<<"$rest"
    if [[ "$instruction" == FROM ]]; then
      is_needed=false
      [[ "$needed" != *" ${words[2]} "* ]] || is_needed=true
    fi
    $is_needed || continue
    say "[$stage] $instruction ${rest:0:60}"
    start=$SECONDS
    case "$instruction" in
      FROM) do_from "${words[@]}" ;;
      COPY) do_copy "${words[@]}" ;;
      RUN) do_run "$rest" ;;
      ENV) environment+=("$rest") ;;
      WORKDIR) workdir=$rest; mkdir -p "$rootfs$workdir" ;;
      USER) user=$rest ;;
      HEALTHCHECK) healthcheck=${rest#*CMD } ;;
      ENTRYPOINT) entrypoint=$rest ;;
      CMD) command=$rest ;;
      EXPOSE | VOLUME | LABEL) ;;
      *) die "$instruction is not known here" ;;
    esac
    ((SECONDS - start < 10)) || say "    $((SECONDS - start)) s"
  done < <(instructions)
}

# ---- what came out -----------------------------------------------------------

check_content() {
  local binary libraries package extra
  binary=$(run_in root sh -c 'command -v lorikeet')
  libraries=$(run_in root ldd "$binary")
  if grep 'not found' <<<"$libraries"; then
    die "the image lacks libraries"
  fi
  local plugin
  plugin=$(dirname "$binary")/liblorikeet_cuda.so
  if [[ "$target" == cuda ]]; then
    if run_in root ldd "$plugin" | grep 'not found'; then
      die "the plug-in lacks libraries"
    fi
    say "the CUDA plug-in finds its libraries"
  fi
  # shellcheck disable=SC2016  # for dpkg-query
  extra=$(comm -13 <(chroot "$BASE" dpkg-query -W -f '${Package}\n' | sort) \
    <(run_in root dpkg-query -W -f '${Package}\n' | sort))
  if grep -E -- '-dev$|^(cmake|g\+\+|gcc|make|ninja-build|git|ccache)(-|$)' \
    <<<"$extra"; then
    die "the image has build tools"
  fi
  local used
  used=$(awk '/=> \//{print $3}' <<<"$libraries" | sort -u |
    while read -r file; do
      run_in root sh -c "dpkg-query -S '$file' \"\$(readlink -f '$file')\"" \
        2>/dev/null || true
    done | cut -d: -f1 | sort -u)
  for package in $listed_packages; do
    grep -qx -- "$package" <<<"$used" || die "nothing needs $package"
  done
  [[ "$user" != root ]] || die "the image runs as root"
  say "content: $(wc -w <<<"$extra") packages besides the empty Debian," \
    "$(du -sh "$rootfs" | cut -f1), user $user"
}

# Runs inside a network of its own.
check_running() {
  local -a serve health
  mapfile -t serve < <(json_list "$entrypoint"; json_list "$command")
  mapfile -t health < <(json_list "$healthcheck")
  ip link set lo up
  mount -t proc proc "$rootfs/proc"
  replace=yes run_in "$user:$user" "${serve[@]}" >"$WORK/serve.out" \
    2>"$WORK/serve.log" &
  server_pid=$!
  local deadline=$((SECONDS + RUN_SECONDS))
  until run_in "$user:$user" "${health[@]}" >"$WORK/health.out" 2>&1; do
    if ((SECONDS >= deadline)) || ! kill -0 "$server_pid" 2>/dev/null; then
      cat "$WORK/serve.log" "$WORK/health.out" >&2
      die "the image's command does not get healthy"
    fi
    sleep 0.2
  done
  say "health check: good"
  run_in "$user:$user" lorikeet adapter register upper \
    /usr/share/lorikeet/demo/adapters/upper >/dev/null
  local answer
  answer=$(run_in "$user:$user" lorikeet generate --task upper \
    --prompt $'Word: lorikeet\nAnswer:')
  [[ "$answer" == *LORIKEET* ]] || die "wrong answer: $answer"
  say "answer of an adapter:$answer"
  kill -TERM "$server_pid"
  wait "$server_pid" || die "the server ended with exit code $?"
  server_pid=
  umount -l "$rootfs/proc"
  say "SIGTERM: ends with exit code 0"
}

if [[ "${LORIKEET_REPLAY_INSIDE:-}" == check ]]; then
  # shellcheck disable=SC1091  # written below
  source "$WORK/image.sh"
  keep=true
  check_running
  exit 0
fi

mkdir -p "$WORK"
rm -f "$WORK"/*.log
make_context
replay
check_content
declare -p rootfs user entrypoint command healthcheck environment \
  >"$WORK/image.sh"
LORIKEET_REPLAY_INSIDE=check unshare --net bash scripts/replay_dockerfile.sh
say "target $target is good ($SECONDS s)"
