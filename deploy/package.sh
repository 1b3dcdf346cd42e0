#!/usr/bin/env bash
# Makes a folder that runs on another Linux, and a tarball of it. See --help.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
Usage: deploy/package.sh [--build DIR] [--with-tests]

Makes dist/lorikeet-VERSION-linux-ARCH/ and a .tar.gz beside it from a release
build: the program, the CUDA plug-in if there was nvcc, and in lib/ the shared
libraries that are not glibc's, which the program finds by its own place. It runs
where glibc is not older than this machine's. The plug-in needs an NVIDIA driver
and cuBLAS of CUDA 13 on the usual paths; without them the program uses the CPU.

  --build DIR   a build tree (default build/release, which is built first)
  --with-tests  add the tests of the CUDA backend, the demo and gpu-check.sh,
                which runs them on a machine with a GPU
  --help        print this
TEXT
}

build='' with_tests=false
while (($# > 0)); do
  case "$1" in
    --build) build=${2:?--build needs a folder}; shift 2 ;;
    --with-tests) with_tests=true; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "unknown argument: $1" >&2; usage >&2; exit 2 ;;
  esac
done
if [[ -z "$build" ]]; then
  build=build/release
  cmake --preset release
  targets=(lorikeet)
  if cmake --build "$build" --target help | grep -q '^lorikeet_cuda:'; then
    targets+=(lorikeet_cuda)
  fi
  if $with_tests; then targets+=(all); fi
  cmake --build "$build" --target "${targets[@]}"
fi

readonly LIMIT_KIB=$((60 * 1024))
version=$(sed -n 's/^project(lorikeet VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
name=lorikeet-$version-linux-$(uname -m)
root=dist/$name
rm -rf "$root"
mkdir -p "$root/lib"

install -m 755 "$build/lorikeet" "$root/lorikeet"
if [[ -e "$build/liblorikeet_cuda.so" ]]; then
  install -m 755 "$build/liblorikeet_cuda.so" "$root/"
else
  echo "skipped: the CUDA plug-in, it was not built"
fi
strip --strip-unneeded "$root"/lorikeet "$root"/*.so 2>/dev/null || true
install -m 644 LICENSE README.md "$root/"

# Libraries of the program and of what the plug-in needs beside cuBLAS.
libraries() {
  ldd "$root/lorikeet" | awk '$3 ~ /^\// { print $3 }' |
    grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv)\.so\.[0-9]+$'
}
while read -r library; do
  install -m 644 "$(readlink -f "$library")" "$root/lib/$(basename "$library")"
done < <(libraries)

if $with_tests; then
  mkdir -p "$root/tests" "$root/demo"
  install -m 755 deploy/gpu-check.sh "$root/"
  cp -r demo/base demo/adapters "$root/demo/"
  # Those that a GPU runs.
  install -m 755 \
    "$build"/tests/kernels/kernels_{attention,elementwise,embed,gemm,kv_cache,linear_group,lora,merge,rms_norm,rope,sample}_test \
    "$build"/tests/kernels/train/kernels_train_{attention,elementwise,product}_test \
    "$build"/tests/kernels/cuda/cuda_intrinsics_test \
    "$build"/tests/e2e/cuda_on_host_test "$root/tests/"
  install -m 755 "$build/liblorikeet_intrinsics_cuda.so" "$root/"
  strip "$root"/tests/*
fi

size=$(du -sk "$root" | cut -f1)
if ((size > LIMIT_KIB)); then
  echo "$root has $size KiB, more than $LIMIT_KIB" >&2
  exit 1
fi
tar -C dist -czf "dist/$name.tar.gz" "$name"
echo "$root: $size KiB; dist/$name.tar.gz: $(du -k "dist/$name.tar.gz" | cut -f1) KiB"
