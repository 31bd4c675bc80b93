"""The chart of `foveal bench`: speed-up over work, and the line that all of the saved work would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foveal.benchmark.results import BenchResult, BenchRow
from foveal.reporting.axes import FAINT, INK, SERIES, new_figure, plain_log_ticks, write_titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_bench(result: BenchResult) -> Figure:
    """Draw a line of points per precision and coarsest level, both axes logarithmic.

    A point on the line "1 / work" has eta 1; what is missing below it is work that was saved but not time.
    """
    rows = result.adaptive
    figure, axes = new_figure()
    works, speeds = [row.work for row in rows], [row.speedup for row in rows]
    ends = [min(0.5, *works) / 1.2, max(1.0, *works) * 1.12]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(ends, [1 / end for end in ends], color=INK, linewidth=1.2, label="1 / work: all that is saved")
    named = ", ".join(f"{best.runtime} in {best.precision}: {best.ms:.0f} ms" for best in result.rivals)
    axes.plot(ends, [1, 1], "--", color=FAINT, linewidth=1.2, label=named)
    for (name, members), colour in zip(_series(rows).items(), SERIES * len(rows), strict=False):
        across, up = [row.work for row in members], [row.speedup for row in members]
        axes.plot(across, up, "o-", color=colour, label=name, markersize=7)
        for row in members:
            text = f"{row.speedup:.2f}x, eta {row.eta:.2f}"
            axes.annotate(
                text, (row.work, row.speedup), (6, 6), textcoords="offset points", fontsize=8, color=colour
            )
    plain_log_ticks(axes, "x", ends)
    plain_log_ticks(axes, "y", [0.8, 1 / ends[0], *speeds])
    axes.set_xlabel("work, as a share of the dense network's")
    axes.set_ylabel("speed-up over the fastest static runtime of the same precision")
    axes.legend(frameon=False, loc="upper right")
    write_titles(axes, *_titles(result))
    return figure


def _titles(result: BenchResult) -> tuple[str, str]:
    (height, width), row = result.size, result.adaptive[0]
    batch = f"{result.batch} x " if result.batch > 1 else ""
    what = f"{row.method}, {row.policy}, tile {row.tile} px"
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    where = f"{result.machine}, {threads}; median of {result.repeat} in turns, from image to labels"
    return f"{result.model}, {batch}{width} x {height} px: {what}", where


def _series(rows: Sequence[BenchRow]) -> dict[str, list[BenchRow]]:
    """Group rows by precision and coarsest level, least work first.

    A row without coarse levels is in every group of its precision.
    """
    levels = sorted({row.max_level for row in rows} - {0}) or [0]
    precisions = list(dict.fromkeys(row.precision for row in rows))
    groups = {}
    for precision in precisions:
        for level in levels:
            name = f"coarsest level {level}" + (f", {precision}" if len(precisions) > 1 else "")
            members = [row for row in rows if row.precision == precision and row.max_level in (0, level)]
            groups[name] = sorted(members, key=lambda row: row.work)
    return {name: members for name, members in groups.items() if members}
