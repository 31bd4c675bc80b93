"""Run a foveal command with --json and store its rows with commit, machine and command.

python scripts/record.py benchmarks/camvid_rn18/test.json -- evaluate camvid_rn18 --data camvid:data/camvid
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import torch

from foveal.kernels import processor as cpu


def processor() -> str:
    """Name and speed-relevant features of the processor."""
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni") if flag in cpu.features()]
    return f"{cpu.processor()}, {os.cpu_count()} cores, {' '.join(flags)}"


def run(command: list[str]) -> list[dict[str, object]]:
    """Run one command and return its rows."""
    program = Path(sys.executable).with_name("foveal")
    done = subprocess.run([program, *command, "--json"], stdout=subprocess.PIPE, check=True)
    rows = json.loads(done.stdout)
    return rows if isinstance(rows, list) else [rows]


def main() -> None:
    out, *arguments = sys.argv[1:]
    commands = [list(part) for marker, part in groupby(arguments, lambda word: word == "--") if not marker]
    if not commands or arguments[0] != "--":
        sys.exit("usage: record.py OUT.json -- COMMAND OF FOVEAL [-- ANOTHER COMMAND]...")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True, check=False
    )
    record = {
        "commands": [" ".join(["foveal", *command, "--json"]) for command in commands],
        "commit": commit.stdout.strip(),
        "machine": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rows": [row for command in commands for row in run(command)],
    }
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(path)
    print(f"wrote {path}: {len(record['rows'])} rows")


if __name__ == "__main__":
    main()
