"""Run a foveal command with --json and store its rows with commit, machine and command.

python scripts/record.py benchmarks/camvid_rn18/test.json -- evaluate camvid_rn18 --data camvid:data/camvid
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from foveal.benchmark.machine import describe_machine
from foveal.storage.atomic import write_atomically


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
    record = asdict(describe_machine()) | {
        "command": " && ".join(shlex.join(["foveal", *command, "--json"]) for command in commands),
        "rows": [row for command in commands for row in run(command)],
    }
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(record, indent=1) + "\n")
    print(f"wrote {path}: {len(record['rows'])} rows")


if __name__ == "__main__":
    main()
