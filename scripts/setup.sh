#!/usr/bin/env bash
# Make .venv and install the package with the extras named in $1 (none by default). Does nothing if done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:-}"
target=".${extras:+[$extras]}"
stamp=".venv/.installed-${extras:-plain}"
if [[ -e "$stamp" && "$stamp" -nt pyproject.toml ]]; then exit 0; fi
[[ -x .venv/bin/python ]] || "${PYTHON:-python3}" -m venv .venv
echo "installing foveal${extras:+ with $extras} into .venv" >&2
# uv is quick but reads no pip configuration: hand it the one setting that matters (where local wheels lie).
links="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$(.venv/bin/python -m pip config get global.find-links 2>/dev/null || true)}}"
# Without a GPU, PyPI's default build of PyTorch would bring gigabytes of CUDA: take the CPU build, from local
# wheels if there are any, else from PyTorch's own index.
if ! command -v nvidia-smi >/dev/null && ! compgen -G "${links%/}/torch-*cpu*.whl" >/dev/null; then
  .venv/bin/python -m pip install -q "torch>=2.11,<2.14" --index-url https://download.pytorch.org/whl/cpu || true
fi
if [[ -z "${NO_UV:-}" ]] && .venv/bin/python -m pip install -q uv 2>/dev/null \
  && UV_FIND_LINKS="$links" .venv/bin/uv pip install -q --python .venv/bin/python -e "$target"; then
  :
else
  .venv/bin/python -m pip install -q -e "$target"
fi
touch "$stamp"
