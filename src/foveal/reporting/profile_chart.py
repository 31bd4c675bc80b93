"""The chart of `foveal adapt`: agreement with the dense network over work and over time, with controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = {
    "coarse_to_fine": ("coarse to fine", "o-", "#266cc4"),
    "random": ("refined at random", "s--", "#d65e24"),
    "uniform": ("everything coarse", "^", "#707078"),
    "dense": ("dense", "*", "#222228"),
}


def draw_fit(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the curve of a `Fit` into a PNG file.

    Args:
        rows: The curve: method, work (a share), ms [ms] and agreement (a share) of every row.
        path: The file.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure  # takes half a second, only where a chart is drawn

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key, text in (
        (left, "work", "share of the dense work, all passes"),
        (right, "ms", "milliseconds"),
    ):
        for method, (name, style, colour) in NAMES.items():
            chosen = [row for row in rows if row["method"] == method]
            across, up = [row[key] for row in chosen], [100 * row["agreement"] for row in chosen]
            axes.plot(across, up, style, color=colour, label=name, markersize=7)
        axes.set_xlabel(text)
        axes.set_xlim(left=0)
        axes.grid(color="#e6e6eb")
        axes.set_axisbelow(True)
    left.set_ylabel("pixels with the dense network's label [%]")
    left.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=130)
