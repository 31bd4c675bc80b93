"""How large the policy network must be.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, table VII.
Differs: every policy is trained afterwards on the same network, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foveal.evaluation.evaluate import evaluate
from foveal.methods import Dense
from studies.segblocks.entries import fixed
from studies.segblocks.experiment import Experiment
from studies.segblocks.learned import free, learned, learned_policy
from studies.segblocks.networks import Networks
from studies.segblocks.paper import policy_gmacs
from studies.segblocks.seeds import over_seeds
from studies.segblocks.study import work_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHAPES = ((64, 2), (64, 3), (64, 4), (64, 5), (32, 4), (128, 4))
"""Width and layers."""


@dataclass(frozen=True, kw_only=True)
class PolicyNetRow:
    """A size of the policy network over seeds.

    Attributes:
        layers: Of the network.
        width: Its channels.
        policy_gmacs: Of the decision at 1024x2048, with blocks of 128 px as in the paper [GMAC].
        parameters: Their number.
        miou: Mean IoU, 0..1.
        miou_std: Its standard deviation; None for a single seed.
        work: Share of the dense network's, the decision aside.
        seeds: Number of seeds.
    """

    layers: int
    width: int
    policy_gmacs: float
    parameters: int
    miou: float
    miou_std: float | None
    work: float
    seeds: int


@dataclass(frozen=True)
class PaperRow:
    """Table VII, RN18 on Cityscapes val, target 0.4."""

    layers: int
    width: int
    miou: float
    policy_gmacs: float


PAPER = [
    PaperRow(layers, width, miou / 100, gmacs)
    for layers, width, miou, gmacs in (
        (2, 64, 75.3, 0.01),
        (3, 64, 75.5, 0.07),
        (4, 64, 76.3, 0.34),
        (5, 64, 76.1, 1.51),
        (4, 32, 76.2, 0.11),
        (4, 128, 76.1, 1.21),
    )
]


def run(networks: Networks) -> list[PolicyNetRow]:
    """Train policies of several sizes for the first target; measure them with as many blocks as it says."""
    target, data = networks.targets()[0], networks.images.evaluated
    shapes = [shape for shape in SHAPES if networks.study.block % 2 ** (shape[1] + 1) == 0]
    repeats = []
    for seed in networks.seeds():
        models = [networks.policy(target, seed, shape=shape) for shape in shapes]
        entries = [fixed(learned(free(model), work_of(target)), "learned", target) for model in models]
        repeats.append(evaluate(Dense(networks.dense(seed).network).eval(), data, entries, timed=0)[1:])
    return [
        PolicyNetRow(
            layers=layers,
            width=width,
            policy_gmacs=round(policy_gmacs(width, layers), 3),
            parameters=sum(p.numel() for p in learned_policy(model).net.parameters()),
            miou=row.miou,
            miou_std=row.miou_std,
            work=row.work,
            seeds=row.seeds,
        )
        for (width, layers), model, row in zip(shapes, models, over_seeds(repeats), strict=True)
    ]


def draw(rows: list[PolicyNetRow], axes: Axes) -> None:
    """Draw mIoU over the policy's GMACs, ours and the paper's, each as a difference to 4 layers of 64."""
    _draw(rows, axes, "ours", "o")
    _draw(PAPER, axes, "paper", "x")
    axes.set_xscale("log")
    axes.set_xlabel("GMAC of the policy at 1024x2048")
    axes.set_ylabel("mIoU, difference to 4 layers x 64 [points]")
    axes.legend(fontsize=8)


def _draw(rows: Sequence[PolicyNetRow | PaperRow], axes: Axes, name: str, mark: str) -> None:
    base = next((row.miou for row in rows if (row.layers, row.width) == (4, 64)), 0)
    places = [(row.policy_gmacs, 100 * (row.miou - base)) for row in rows]
    axes.plot([gmacs for gmacs, _ in places], [points for _, points in places], mark, label=name)
    for place, row in zip(places, rows, strict=True):
        text = f"{row.layers}x{row.width}"
        axes.annotate(text, place, (4, 4), textcoords="offset points", fontsize=7)


EXPERIMENT = Experiment(
    "Size of the policy network (table VII)",
    "Each trained afterwards for the first target on the same network, and measured with the same number "
    "of blocks at full resolution, the cost of the decision aside. "
    "GMAC at 1024x2048 with blocks of 128 px.",
    run,
    (draw,),
    PAPER,
)
