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
bash scripts/cpu_torch.sh .venv/bin/python "$links"
if [[ -z "${NO_UV:-}" ]] && .venv/bin/python -m pip install -q uv 2>/dev/null \
  && UV_FIND_LINKS="$links" .venv/bin/uv pip install -q --python .venv/bin/python -e "$target"; then
  :
else
  .venv/bin/python -m pip install -q -e "$target"
fi
touch "$stamp"
