"""The picture of `foveal adapt`: agreement with the dense network over work and over time, with controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from foveal.calibration.profile import CurveRow
from foveal.storage.atomic import replacing

NAMES = {
    "coarse_to_fine": ("coarse to fine", "o-", "#266cc4"),
    "random": ("refined at random", "s--", "#d65e24"),
    "uniform": ("everything coarse", "^", "#707078"),
    "dense": ("dense", "*", "#222228"),
}


def draw_profile(rows: Sequence[CurveRow], path: Path) -> None:
    """Draw the curve of a calibration profile into a PNG file."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key, text in (
        (left, "work", "share of the dense work, all passes"),
        (right, "ms", "milliseconds"),
    ):
        for method, (name, style, colour) in NAMES.items():
            chosen = [row for row in rows if row.method == method]
            across, up = [getattr(row, key) for row in chosen], [100 * row.agreement for row in chosen]
            axes.plot(across, up, style, color=colour, label=name, markersize=7)
        axes.set_xlabel(text)
        axes.set_xlim(left=0)
        axes.grid(color="#e6e6eb")
        axes.set_axisbelow(True)
    left.set_ylabel("pixels with the dense network's label [%]")
    left.legend(frameon=False, loc="upper left")
    with replacing(path) as part:
        figure.savefig(part, dpi=130)
