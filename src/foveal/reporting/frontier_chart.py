"""The picture of `foveal frontier`: mIoU over milliseconds, the static curve and ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foveal.benchmark.conclusion import FrontierResult
from foveal.benchmark.frontier import FrontierRow, curve
from foveal.reporting.axes import FAINT, INK, SERIES, new_figure, plain_log_ticks, write_titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {"f32": "o", "bf16": "s", "int8": "D"}
CURVES = (
    ("static", "whole image, shrunk and quantised (scale of its sides)", FAINT),
    ("adaptive", "adaptive (budget, and scale of what is seen)", SERIES[0]),
)


def draw_frontier(result: FrontierResult) -> Figure:
    """Draw every row as a point, marked by its precision, and the best of both kinds as curves."""
    figure, axes = new_figure()
    axes.set_xscale("log")
    for kind, label, colour in CURVES:
        mine = [row for row in result.rows if row.kind == kind]
        for row in mine:
            axes.plot(row.ms, 100 * row.miou, MARKERS[row.precision], color=colour, alpha=0.45, markersize=6)
        points = curve(mine, kind)  # type: ignore[arg-type]
        if points:
            across, up = [point.cost for point in points], [100 * point.quality for point in points]
            axes.plot(across, up, "-", color=colour, linewidth=2.2, label=label)
        _name_points(axes, [row for row in mine if row.on_curve], INK if kind == "static" else colour)
    for precision in dict.fromkeys(row.precision for row in result.rows):
        axes.plot([], [], MARKERS[precision], color=INK, alpha=0.45, label=precision)
    plain_log_ticks(axes, "x", [row.ms for row in result.rows])
    axes.set_xlabel("milliseconds from an image in memory to labels at its size")
    axes.set_ylabel("mean IoU [%]")
    axes.legend(frameon=False, loc="best")
    height, width = result.size
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    title = f"{result.model} on {result.data}, {result.images} images, {width} x {height} px"
    write_titles(axes, title, f"{result.machine}, {threads}; medians, all in turns in one process")
    return figure


def _name_points(axes: Axes, rows: list[FrontierRow], colour: str) -> None:
    """Write beside the points of a curve what they are: below and right if static, above and left if not.

    Who they are is said only where several share the curve.
    """
    several = len({row.name for row in rows}) > 1
    for row in rows:
        static = row.kind == "static"
        place, across = ((6, -11), "left") if static else ((-6, 7), "right")
        axes.annotate(
            _words(row, several),
            (row.ms, 100 * row.miou),
            place,
            textcoords="offset points",
            horizontalalignment=across,
            fontsize=7.5,
            color=colour,
        )


def _words(row: FrontierRow, named: bool) -> str:
    """Return name, setting and scale of a row."""
    scale = f"at {row.scale:g}" if row.kind == "adaptive" and row.scale < 1 else ""
    return " ".join(filter(None, [row.name if named else "", f"{row.setting:g}", scale]))
