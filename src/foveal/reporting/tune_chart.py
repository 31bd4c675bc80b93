"""The picture of `foveal tune`: mean IoU over work, and over time if it was taken, shrinking alone beside."""

from __future__ import annotations

from pathlib import Path

from foveal.calibration.tune import TuneResult, TuneRow
from foveal.reporting.axes import FAINT, GRID, SERIES, plain_log_ticks
from foveal.storage.atomic import replacing


def draw_tune(found: TuneResult, path: Path) -> None:
    """Draw what every setting reached into a PNG file.

    Raises:
        OSError: It cannot be written.
    """
    from matplotlib.figure import Figure

    rows = found.finalists
    timed = any(row.ms is not None for row in rows)
    figure = Figure(figsize=(12 if timed else 7.5, 4.8), layout="constrained")
    every = figure.subplots(1, 2 if timed else 1, sharey=True, squeeze=False)[0]
    for axes, kind in zip(every, ("work", "time"), strict=False):
        axes.set_xscale("log")
        across = {id(row): row.work if kind == "work" else row.ms or 0.0 for row in rows}
        for mine, label, style, colour in (
            ([row for row in rows if row.method == "dense"], "shrinking alone", "o-", FAINT),
            ([row for row in rows if row.method != "dense"], "adaptive", "o", SERIES[0]),
            (_best(rows, kind), "chosen", "-", SERIES[1]),
        ):
            mine = sorted(mine, key=lambda row: across[id(row)])
            up = [100 * row.miou for row in mine]
            axes.plot([across[id(row)] for row in mine], up, style, color=colour, label=label, alpha=0.8)
        plain_log_ticks(axes, "x", across.values())
        axes.set_xlabel("share of the dense work" if kind == "work" else "milliseconds")
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
    every[0].set_ylabel("mean IoU [%]")
    every[0].legend(frameon=False)
    every[0].set_title(f"{found.model} on {found.data}, {found.images} images", loc="left", fontsize=11)
    with replacing(path) as part:
        figure.savefig(part, dpi=130, format="png")


def _best(rows: list[TuneRow], kind: str) -> list[TuneRow]:
    return [row for row in rows if kind in row.best_for]
