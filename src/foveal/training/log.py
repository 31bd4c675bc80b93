"""Log of a run: a line of JSON per step and, if TensorBoard is installed, its events."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from foveal.storage.atomic import write_atomically
from foveal.storage.reading import parse_json, read_bounded

LOG = "log.jsonl"
OPENED = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
"""How the log is opened: a link in its place may point anywhere, and is an error."""
MOST_BYTES = 1 << 30
WINDOW = 20
"""Steps that a row of the summary is the mean of, at most."""


class History:
    """Writes the values of every step of a run.

    Args:
        run: Folder of the run.
        first: Step that the run goes on with; lines of later steps, which it does again, are dropped.

    Raises:
        OSError: The log is a symbolic link, or cannot be written.
    """

    def __init__(self, run: Path, first: int) -> None:
        self.path = run / LOG
        _check_no_link(self.path)
        if self.path.exists():
            _replace(self.path, [row for row in read_history(run) if row["step"] < first])
        self.writer = _tensorboard(run)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write the values of a step.

        Raises:
            OSError: The disk is full, and the log ends with the step before; or it is a link by now.
        """
        _check_no_link(self.path)
        try:
            _append(self.path, json.dumps({"step": step, **values}).encode() + b"\n")
        except OSError as error:
            raise OSError(f"{self.path} cannot be written ({error.strerror})") from None
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish writing."""
        if self.writer is not None:
            self.writer.close()


def read_history(run: Path) -> list[dict[str, float]]:
    """Read the steps of a run; a last line that was cut by a kill is left out.

    Raises:
        ValueError: Another line is damaged.
    """
    path = run / LOG
    text = (
        read_bounded(path, "log of a run", most=MOST_BYTES).decode(errors="replace") if path.exists() else ""
    )
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    try:
        rows = [parse_json(line, path, "log of a run", finite=False) for line in lines]
        if not all(isinstance(row, dict) and isinstance(row.get("step"), int) for row in rows):
            raise ValueError(f"{path}: no log of a run (a line names no step)")
    except ValueError as error:
        raise ValueError(f"{error}; delete it, the checkpoint does without") from None
    return rows


def summary(run: Path) -> list[dict[str, str | float]]:
    """Summarise a run in four rows, at its start, quarter, half and end.

    Returns:
        Rows with `at` (the name of the place), `step` (the last one of the row), and every value of the log,
        the mean over up to 20 steps but over no more than an eighth of the run.
    """
    rows = read_history(run)
    if not rows:
        return []
    window = max(1, min(WINDOW, len(rows) // 8))
    ends = {"start": window, "quarter": len(rows) // 4, "half": len(rows) // 2, "end": len(rows)}
    found: list[dict[str, str | float]] = []
    for name, end in ends.items():
        part = rows[max(0, max(end, 1) - window) : max(end, 1)]
        names = [key for key in part[-1] if key != "step"]
        means = {key: fmean(row[key] for row in part if key in row) for key in names}
        found.append({"at": name, "step": part[-1]["step"], **means})
    return found


def _append(path: Path, line: bytes) -> None:
    """Write a line at the end of a file, or nothing."""
    handle = os.open(path, OPENED, 0o666)
    try:
        before = os.fstat(handle).st_size
        try:
            while line:
                line = line[os.write(handle, line) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, before)
            raise
    finally:
        os.close(handle)


def _check_no_link(path: Path) -> None:
    """Check that a log is a file of its own.

    Raises:
        OSError: It is a symbolic link.
    """
    if path.is_symlink():
        raise OSError(f"{path} is a symbolic link, which is not followed; delete it, or give another --run")


def _replace(path: Path, rows: list[dict[str, float]]) -> None:
    """Write the lines at once: a kill leaves the old file or the new one."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(run / "tensorboard")
