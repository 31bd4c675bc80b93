"""Run a foveal command with --json and store its rows with commit, machine and command.

python scripts/record.py benchmarks/camvid_rn18/test.json -- evaluate camvid_rn18 --data camvid:data/camvid
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch


def processor() -> str:
    """Name and speed-relevant features of the processor."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = next(
        (line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), ""
    )
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni") if f" {flag}" in text]
    return f"{name or platform.processor()}, {os.cpu_count()} cores, {' '.join(flags)}"


def main() -> None:
    out, marker, *arguments = sys.argv[1:]
    if marker != "--":
        sys.exit("usage: record.py OUT.json -- COMMAND OF FOVEAL")
    command = ["foveal", *arguments, "--json"]
    done = subprocess.run(
        [Path(sys.executable).with_name("foveal"), *command[1:]], stdout=subprocess.PIPE, check=True
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True, check=False
    )
    rows = json.loads(done.stdout)
    record = {
        "command": " ".join(command),
        "commit": commit.stdout.strip(),
        "machine": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rows": rows if isinstance(rows, list) else [rows],
    }
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {path}: {len(record['rows'])} rows")


if __name__ == "__main__":
    main()
