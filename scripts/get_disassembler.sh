#!/usr/bin/env bash
# Gets NVIDIA's disassembler, which not every CUDA toolkit has, from its Python
# wheels into build/disassembler, where the build looks for it: a test reads the
# machine code of our kernels. Nothing else needs it; no GPU is needed.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly ROOT=build/disassembler
if command -v cuobjdump nvdisasm >/dev/null ||
    compgen -G "$ROOT/nvidia/*/bin/nvdisasm" >/dev/null; then
  exit 0
fi
python3 -m pip install --quiet --disable-pip-version-check --no-deps \
  --root-user-action ignore --target "$ROOT" \
  nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
chmod +x "$ROOT"/nvidia/*/bin/*
