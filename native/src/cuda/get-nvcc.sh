#!/usr/bin/env bash
# Brings NVIDIA's compiler, from its own pip wheels, into native/build/nvcc (ignored by git), and prints the path of nvcc
# as its last line. No driver, no root, about 100 MB. A build finds it there by itself.
set -euo pipefail
folder=$(cd "$(dirname "$0")/../.." && pwd)/build/nvcc
nvcc=$folder/nvidia/cu13/bin/nvcc
# The wheels of one toolkit, 13.0 Update 1: compiler, its front end's headers, optimiser, runtime library, headers of C++.
wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
        nvidia-cuda-cccl==13.0.85)
if [ ! -x "$nvcc" ]; then
  rm -rf "$folder.new"
  python3 -m venv "$folder.new/venv"
  "$folder.new/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps \
    --target "$folder.new/wheels" "${wheels[@]}" >&2
  rm -rf "$folder"
  mv "$folder.new/wheels" "$folder"
  rm -rf "$folder.new"
fi
"$nvcc" --version >/dev/null
echo "$nvcc"
