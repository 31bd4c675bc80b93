"""What `foveal search` found, for the terminal: every exit, and the best ways to leave a network."""

from __future__ import annotations

from pathlib import Path

from typer import style

from foveal.calibration.exit_search import ModeRow, SearchResult
from foveal.reporting.table import table

TITLES = {
    "fixed": "every image leaves at one exit",
    "input": "an image leaves when an exit is sure",
    "anytime": "every exit answers, one after the other",
}


def search_text(found: SearchResult, file: Path) -> str:
    """Write the exits, and what is best for every budget."""
    timed = ["ms"] if any(row.ms is not None for row in found.exits) else []
    exits = [
        [
            str(row.exit),
            row.place or "the end",
            f"{row.work:.3f}",
            *_ms(row.ms, timed),
            f"{100 * row.miou:.2f}",
        ]
        + [
            f"{row.temperature:.2f}",
            f"{100 * row.calibration_error:.1f}",
            f"{100 * row.calibrated_error:.1f}",
        ]
        + [f"{100 * row.risk['0.8']:.1f}"]
        for row in found.exits
    ]
    head = [
        "exit",
        "after",
        "work",
        *timed,
        "mIoU",
        "temperature",
        "ECE %",
        "ECE %, divided",
        "error of surest 80 %",
    ]
    parts = [
        f"{style(found.model, bold=True)}  {found.data}, {found.images} images\n",
        table(head, exits),
    ]
    for mode, title in TITLES.items():
        rows = [row for row in found.rows if row.mode == mode]
        if rows:
            columns = ["budget", "exits", "threshold", "leave early", "work", *timed, "mIoU"]
            parts += ["", style(title, dim=True), table(columns, [_cells(row, timed) for row in rows])]
    caution = f"Chosen on these {found.images} images: report results on others."
    return "\n".join([*parts, "", caution, f"wrote {file}"])


def _cells(row: ModeRow, timed: list[str]) -> list[str]:
    threshold = "-" if row.threshold is None else f"{row.threshold:.3f}"
    return [
        f"{row.budget:.3g}",
        row.exits or "the end",
        threshold,
        f"{row.left:.0%}",
        f"{row.work:.3f}",
        *_ms(row.ms, timed),
        f"{100 * row.miou:.2f}",
    ]


def _ms(value: float | None, timed: list[str]) -> list[str]:
    return ["-" if value is None else f"{value:.1f}"] if timed else []
