"""Quality and cost over a data set, as terminal text."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.evaluation.rows import EvalRow
from foveal.evaluation.video import VideoRow
from foveal.reporting.table import giga, table

HEAD = ("method", "policy", "budget", "work", "mIoU", "pixels", "boundary F", "agrees", "MACs", "ms")
NONE = "-"
"""Stands for a figure that there is not."""


def evaluation_table(rows: Sequence[EvalRow]) -> str:
    """Tabulate methods over a data set, the dense network first."""
    risky = any(row.disagreement is not None for row in rows)
    cells = [_cells(row) + ([_share(row.risk), _share(row.disagreement)] if risky else []) for row in rows]
    head: tuple[str, ...] = (*HEAD, *(("risk", "disagreement") if risky else ()))
    if any(row.excess_error is not None for row in rows):
        cells = [[*line, _share(row.excess_error)] for line, row in zip(cells, rows, strict=True)]
        head = (*head, "excess error")
    if varied := _varied(rows):
        cells = [[*line, _with(row, varied)] for line, row in zip(cells, rows, strict=True)]
        head = (*head, "with")
    note = "mIoU, pixels, boundary F and agreement in percent"
    return f"{table(head, cells)}\n{rows[0].images} images; {note}"


def video_table(rows: Sequence[VideoRow]) -> str:
    """Tabulate methods over a video, the dense network first."""
    head = (*HEAD[:4], "later", HEAD[4], "flickers", *HEAD[7:], "MiB")
    cells = []
    for row in rows:
        method, policy, budget, work, miou, _, _, agrees, macs, ms = _cells(row)
        later = NONE if row.work_later is None else f"{row.work_later:.3f}"
        kept = f"{row.memory_bytes / 2**20:.0f}"
        cells.append(
            [method, policy, budget, work, later, miou, _percent(row.flicker), agrees, macs, ms, kept]
        )
    note = "mIoU, flicker and agreement in percent; later: work without the first frame's"
    return f"{table(head, cells)}\n{rows[0].images} frames; {note}"


def _cells(row: EvalRow) -> list[str]:
    return [
        row.method,
        row.policy or NONE,
        f"{row.budget:.2f}",
        f"{row.work:.3f}",
        *(_percent(value) for value in (row.miou, row.pixel_accuracy, row.boundary_f, row.agreement)),
        giga(row.macs),
        NONE if row.ms is None else f"{row.ms:.0f}",
    ]


def _varied(rows: Sequence[EvalRow]) -> list[str]:
    """Name the settings, besides the policy, that differ between rows of one method."""
    known: dict[tuple[str, str], set[object]] = {}
    for row in rows:
        for name, value in (row.settings or {}).items():
            known.setdefault((row.method, name), set()).add(value)
    names = [name for (_, name), values in known.items() if len(values) > 1 and name != "policy"]
    return list(dict.fromkeys(names))


def _with(row: EvalRow, names: Sequence[str]) -> str:
    """Show the settings of a row that others of its method have otherwise."""
    found = row.settings or {}
    return ", ".join(f"{name} {found[name]}" for name in names if found.get(name) is not None) or NONE


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.2f}"


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.2%}"
