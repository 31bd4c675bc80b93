#!/usr/bin/env bash
# Install PyTorch's CPU build for the Python in $1, where no GPU is there and no local wheel in $2 brings it.
# PyPI's default build would bring gigabytes of CUDA.
set -euo pipefail
links="${2:-}"
if ! command -v nvidia-smi >/dev/null && ! compgen -G "${links%/}/torch-*cpu*.whl" >/dev/null; then
  "$1" -m pip install -q "torch>=2.11,<2.14" --index-url https://download.pytorch.org/whl/cpu || true
fi
