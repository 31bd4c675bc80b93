"""Axes that the charts share: one style, labels in plain numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#222228", "#707078", "#e6e6eb"
SERIES = ("#266cc4", "#d65e24", "#288c60", "#8048a0", "#b0285a", "#6b6b20")
STEPS = (1, 1.5, 2, 3, 4, 5, 7)
"""Ticks of a decade of a logarithmic axis."""


def new_figure(width: float = 10.0, height: float = 6.4) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes; sides are in inches, at 120 dots an inch when saved."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def plain_log_ticks(axes: Axes, which: str, values: Iterable[float]) -> None:
    """Give a logarithmic axis ("x" or "y") ticks in plain numbers, where the values lie."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values := list(values)), max(values)
    ticks = [step * 10.0**power for power in range(-3, 6) for step in STEPS]
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator([tick for tick in ticks if 0.8 * low <= tick <= 1.25 * high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))


def write_titles(axes: Axes, title: str, below: str) -> None:
    """Write what is shown, and below it in small letters how it was measured."""
    axes.set_title(title + "\n", loc="left", fontsize=13, color=INK)
    axes.text(0, 1.015, below, transform=axes.transAxes, fontsize=9, color=FAINT)
