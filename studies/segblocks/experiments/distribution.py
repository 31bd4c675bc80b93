"""How many MACs every single image takes: by probability they follow the image, by budget they do not.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, figure 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

from foveal.evaluation.evaluate import evaluate
from foveal.methods import Dense
from studies.segblocks.entries import fixed
from studies.segblocks.experiment import Experiment
from studies.segblocks.images import single
from studies.segblocks.learned import RULES, budget_of, learned
from studies.segblocks.networks import Networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 240
"""Images that are counted at most."""


@dataclass(frozen=True)
class ImageRow:
    """What a single image takes.

    Attributes:
        image: Its number.
        target: Share of the blocks at full resolution.
        rule: How the policy keeps to it.
        gmacs: The policy included [GMAC].
        work: Share of the dense network's.
    """

    image: int
    target: float
    rule: str
    gmacs: float
    work: float


@dataclass(frozen=True)
class SpreadRow:
    """Mean, spread and extremes over the images [GMAC]."""

    target: float
    rule: str
    images: int
    gmacs: float
    deviation: float
    least: float
    most: float


def run(networks: Networks) -> list[ImageRow]:
    """Count every image by itself."""
    entries, heads = [], []
    for target in networks.targets():
        model = networks.segblocks(target)
        for rule, budget in zip(RULES, (None, budget_of(model, target)), strict=True):
            entries.append(fixed(learned(model, budget), rule, target))
            heads.append((target, rule))
    network, data = networks.dense().network, networks.images.evaluated
    rows = []
    for index in range(min(MOST, len(data))):
        found = evaluate(Dense(network).eval(), single(data, index), entries, timed=0)[1:]
        rows += [
            ImageRow(index, target, rule, round(row.macs / 1e9, 4), row.work)
            for (target, rule), row in zip(heads, found, strict=True)
        ]
    return rows


def summary(rows: list[ImageRow]) -> list[SpreadRow]:
    """Say mean, spread and extremes per target and rule."""
    return [
        SpreadRow(
            target,
            rule,
            len(values),
            round(fmean(values), 3),
            round(pstdev(values), 3),
            round(min(values), 3),
            round(max(values), 3),
        )
        for (target, rule), values in _groups(rows).items()
    ]


def draw(rows: list[ImageRow], axes: Axes) -> None:
    """Draw a histogram per target and rule."""
    found = [row.gmacs for row in rows]
    low, high = min(found), max(found)
    width = max(high - low, 1e-6) / 24
    bins = [low + width * k for k in range(25)]
    for (target, rule), values in _groups(rows).items():
        axes.hist(values, bins, alpha=0.55, label=f"target {target:g}, {rule}")
    axes.set_xlabel("GMAC per image")
    axes.set_ylabel("images")
    axes.legend(fontsize=8)


def _groups(rows: list[ImageRow]) -> dict[tuple[float, str], list[float]]:
    """Return the GMACs of every target and rule."""
    found: dict[tuple[float, str], list[float]] = {}
    for row in rows:
        found.setdefault((row.target, row.rule), []).append(row.gmacs)
    return found


EXPERIMENT = Experiment(
    "MACs of single images (figure 8)",
    "By probability the MACs follow the image; by budget every image takes the same.",
    run,
    (draw,),
    table=summary,
)
