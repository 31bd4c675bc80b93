#!/usr/bin/env bash
# Build the wheel into dist/, with prebuilt kernels where a C compiler is there, install it into a fresh
# environment, and segment a generated street on a PATH without a compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-python3}"
read -r compiler _ <<<"${CC:-gcc}"
if command -v "$compiler" >/dev/null && [[ "$(uname -s)" == Linux ]]; then
  export FOVEAL_PREBUILT=1
else
  echo "no C compiler: the wheel brings no kernels" >&2
fi
rm -rf dist
"$python" -m pip wheel -q --no-deps -w dist .
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
bash scripts/cpu_torch.sh "$scratch/venv/bin/python" \
  "${PIP_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || true)}"
"$scratch/venv/bin/python" -m pip install -q dist/*.whl
mkdir "$scratch/empty"
cold=(env -i "HOME=$scratch/empty" "PATH=$scratch/empty" "$scratch/venv/bin/python")
cd "$scratch"
if [[ -n "${FOVEAL_PREBUILT:-}" ]]; then
  "${cold[@]}" -c "from foveal.kernels import build; build.loaded(); print('kernels', build.built())"
fi
"${cold[@]}" -m foveal demo --out "$scratch/out" --repeat 2
