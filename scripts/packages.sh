#!/usr/bin/env bash
# The Debian packages that lorikeet is built from, and how they get installed.
# Sourced by quickstart.sh and test.sh; run it alone to install them.

# shellcheck disable=SC2034  # used by those who source this
LORIKEET_PACKAGES=(
  # tools
  ca-certificates ccache cmake g++ git ninja-build pkg-config
  protobuf-compiler protobuf-compiler-grpc
  # libraries
  libabsl-dev libcli11-dev libfmt-dev libgrpc++-dev libhwy-dev libpcre2-dev
  libprotobuf-dev libspdlog-dev libsqlite3-dev libssl-dev libutf8proc-dev
  libyaml-cpp-dev nlohmann-json3-dev zlib1g-dev
  # tests and benchmarks
  libbenchmark-dev libgmock-dev libgtest-dev
)

# Prints those of the given packages that are not installed.
missing_packages() {
  local package
  for package in "$@"; do
    if ! dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null |
        grep -qx installed; then
      printf '%s\n' "$package"
    fi
  done
}

# Installs those of the given packages (none given: all of the list) that are
# missing; asks apt only if there are any.
install_packages() {
  local -a missing=() root=()
  (($# > 0)) || set -- "${LORIKEET_PACKAGES[@]}"
  if ! command -v dpkg-query >/dev/null; then
    echo "This is no Debian system: install by hand what corresponds to: $*" >&2
    return 1
  fi
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]} > 0)) || return 0
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "These packages are missing, and there is no sudo to install them;" \
        "as root:" >&2
      echo "  apt-get install ${missing[*]}" >&2
      return 1
    fi
    root=(sudo)
  fi
  echo "installing ${missing[*]}"
  local -a apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q)
  # A list from an earlier day may name packages that are gone.
  "${apt[@]}" -o Acquire::Retries=3 update
  "${apt[@]}" -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 install -y \
    --no-install-recommends "${missing[@]}"
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
  set -euo pipefail
  install_packages
fi
