"""What `foveal tune` found, for the terminal: a table, and what follows from it in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typer import style

from foveal.calibration.tune import TuneResult, TuneRow
from foveal.reporting.table import table

NEAR = 0.001
"""Work beyond a budget that counts as within it: about a tile."""
PAST = 0.002
"""Mean IoU by which a smaller scale must be better before dense is said to be past its peak."""


def tune_text(found: TuneResult, file: Path, picture: str) -> str:
    """Write the settings that were tried on all images, and what they say."""
    height, width = found.size
    where = f"{found.data}, {found.images} images, {width} x {height} px"
    tried = ", ".join(f"{count} on {images}" for images, count in found.rungs)
    timed = any(row.ms is not None for row in found.finalists)
    head = ["", "setting", "precision", "work", *(["ms"] if timed else []), "mIoU"]
    return "\n".join(
        [
            f"{style(found.model, bold=True)}  {where}",
            f"{style(f'settings tried: {tried} images', dim=True)}\n",
            table(head, [_cells(row, timed) for row in found.finalists]),
            "",
            "* nothing that takes less work or time is as good",
            *conclusions(found),
            f"wrote {file}{f' and {picture}' if picture else ''}",
        ]
    )


def conclusions(found: TuneResult) -> list[str]:
    """Say where the network sees best, and where more than shrinking pays."""
    return [peak(found.finalists), *_per_budget(found.finalists), _caution(found)]


def peak(rows: Sequence[TuneRow]) -> str:
    """Say at which scale the network sees best: whether dense is past its peak."""
    alone = [row for row in rows if row.method == "dense"]
    whole = max((row for row in alone if row.scale == 1), key=lambda row: row.miou)
    best = max(alone, key=lambda row: (row.miou, row.scale))
    figures = f"{100 * best.miou:.1f} mIoU at work {best.work:.2f}"
    if best.miou >= whole.miou + PAST:
        return (
            f"The network sees best at scale {best.scale:g}: {figures}, against {100 * whole.miou:.1f} at "
            "full size. Larger budgets than that are wasted on it."
        )
    return f"The network sees best at full size: {100 * whole.miou:.1f} mIoU."


def _per_budget(rows: Sequence[TuneRow]) -> list[str]:
    """Say for every budget that was tried what is best, and what shrinking alone reaches."""
    lines = []
    for budget in sorted({row.budget for row in rows if row.method != "dense"}):
        able = [row for row in rows if row.work <= budget + NEAR]
        alone = [row for row in able if row.method == "dense"]
        if not alone:
            continue
        best = max(able, key=lambda row: (row.miou, -row.work))
        shrunk = max(alone, key=lambda row: (row.miou, -row.work))
        figure = f"{100 * shrunk.miou:.1f} at scale {shrunk.scale:g}"
        if best.miou <= shrunk.miou:
            lines.append(f"Up to work {budget:g}, shrinking alone is best here: {figure}.")
        else:
            lines.append(
                f"Up to work {budget:g}, best is {best.title}: {100 * best.miou:.1f} mIoU; shrinking alone "
                f"{figure}."
            )
    return lines


def _caution(found: TuneResult) -> str:
    return (
        f"Chosen on {found.images} images of {found.data}: report results on others, these figures are the "
        "best of many."
    )


def _cells(row: TuneRow, timed: bool) -> tuple[str, ...]:
    ms = ["-" if row.ms is None else f"{row.ms:.1f}"] if timed else []
    mark = "*" if row.best_for else " "
    return (mark, row.title, row.precision, f"{row.work:.3f}", *ms, f"{100 * row.miou:.2f}")
