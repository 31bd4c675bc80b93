"""What `foveal frontier` found, for the terminal."""

from __future__ import annotations

from typer import style

from foveal.benchmark.conclusion import FrontierResult
from foveal.benchmark.frontier import FrontierRow
from foveal.reporting.table import table


def frontier_text(result: FrontierResult) -> str:
    """Write the rows from the fastest to the slowest, and what the two curves say."""
    height, width = result.size
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    where = (
        f"{result.machine}, {threads}; median of {result.repeat} rounds on {result.timed} images in turns, "
        "from an image in memory to labels at its size"
    )
    head = ["", "name", "precision", "scale or budget", "ms", "p95", "mIoU", "pixels", "agrees", "settings"]
    rows = sorted(result.rows, key=lambda row: row.ms)
    return "\n".join(
        [
            f"{style(result.model, bold=True)}  {result.data}, {result.images} images, {width} x {height} px",
            f"{style(where, dim=True)}\n",
            table(head, [_cells(row) for row in rows]),
            "",
            "* no row of its kind is faster and better; agrees: with the dense network in f32, of the same "
            "scale for a static row",
            result.at_equal_quality,
            result.at_equal_time,
        ]
    )


def _cells(row: FrontierRow) -> tuple[str, ...]:
    return (
        f"{'*' if row.on_curve else ' '} {row.kind}",
        row.name,
        row.precision,
        f"{row.setting:.2f}",
        f"{row.ms:.1f}",
        f"{row.p95:.1f}",
        f"{100 * row.miou:.2f}",
        f"{100 * row.pixel_accuracy:.2f}",
        "-" if row.agreement is None else f"{100 * row.agreement:.2f}",
        row.settings,
    )
