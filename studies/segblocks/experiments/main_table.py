"""Quality, cost and speed of the dense network, of SegBlocks, and of the dense network on reduced images.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, tables I and IV, figure 7.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from foveal.evaluation.baselines import static
from foveal.evaluation.evaluate import evaluate
from foveal.evaluation.rows import EvalRow
from foveal.methods import Dense
from studies.segblocks.entries import fixed
from studies.segblocks.experiment import Experiment
from studies.segblocks.learned import RULES, budget_of, learned
from studies.segblocks.networks import Networks
from studies.segblocks.rows import HIDDEN
from studies.segblocks.seeds import SeedsRow, over_seeds
from studies.segblocks.study import work_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HALF = 0.25
"""Work of everything at half resolution."""


@dataclass(frozen=True, kw_only=True)
class MainRow:
    """A network of an architecture over seeds; see `SeedsRow`.

    Attributes:
        backbone: Architecture.
        network: What is run, for people.
        target: Share of the blocks at full resolution; None without a policy.
    """

    backbone: str
    network: str
    target: float | None
    # The name of the network says these already.
    method: str = field(metadata=HIDDEN)
    policy: str = field(metadata=HIDDEN)
    budget: float = field(metadata=HIDDEN)
    work: float
    gmacs: float
    miou: float
    miou_std: float | None
    agreement: float
    boundary_f: float | None
    ms: float | None
    images_s: float | None
    images: int = field(metadata=HIDDEN)
    seeds: int


@dataclass(frozen=True)
class PaperRow:
    """Tables I and IV; images a second on a GTX 1080 Ti."""

    data: str
    network: str
    target: float | None
    miou: float
    gmacs: float | None
    images_s: float | None


PAPER = [
    PaperRow(data, network, target, miou / 100, gmacs, fps)
    for data, network, target, miou, gmacs, fps in (
        ("Cityscapes val", "RN50", None, 78.0, 206.3, 16.3),
        ("Cityscapes val", "RN50", 0.4, 77.5, 127.2, 23.3),
        ("Cityscapes val", "RN50", 0.2, 76.2, 88.5, 30.0),
        ("Cityscapes val", "RN18", None, 76.2, 104.1, 38.4),
        ("Cityscapes val", "RN18", 0.4, 76.3, 60.5, 48.6),
        ("Cityscapes val", "RN18", 0.2, 75.9, 43.5, 57.8),
        ("Cityscapes val", "RN18, reduced", None, 74.7, None, None),
        ("Cityscapes val", "EffL1", None, 76.6, 24.9, 17.4),
        ("Cityscapes val", "EffL1", 0.4, 76.3, 15.6, 30.4),
        ("Cityscapes val", "EffL1", 0.2, 75.3, 11.4, 35.6),
        ("CamVid test", "EffL1", None, 75.1, 13.4, 48.0),
        ("CamVid test", "EffL1", 0.4, 74.6, 9.1, 58.0),
        ("CamVid test", "EffL1", 0.2, 73.4, 6.6, 64.0),
    )
]


def run(networks: Networks) -> list[MainRow]:
    """Measure every architecture: dense, SegBlocks by probability and by exact budget, reduced images.

    What is timed takes turns on every image.
    """
    rows = []
    for backbone in networks.backbones:
        joined = over_seeds([_repeat(networks, backbone, seed) for seed in networks.seeds(backbone)])
        heads = [None, *(target for target in networks.targets(backbone) for _ in RULES)]
        heads += [None] * (len(joined) - len(heads))
        for row, target in zip(joined, heads, strict=True):
            if row.method != "segblocks" and not networks.repeated(backbone):
                row = replace(row, miou_std=None, seeds=1)  # one network repeated has no deviation
            rows.append(MainRow(backbone=backbone, network=label(row), target=target, **asdict(row)))
    return rows


def label(row: SeedsRow) -> str:
    """Name a row of an evaluation for people."""
    if row.method == "segblocks":
        return f"SegBlocks, {row.policy}"
    return "dense" if row.method == "dense" else f"dense, {row.policy}"


def draw(rows: list[MainRow], axes: Axes) -> None:
    """Draw mIoU over GMACs: a line of reduced images, a line per rule of SegBlocks."""
    for backbone in dict.fromkeys(row.backbone for row in rows):
        ours = [row for row in rows if row.backbone == backbone]
        dense = [row for row in ours if row.method == "dense"]
        lines = {"reduced images": [row for row in ours if row.method == "static"]}
        lines |= {f"SegBlocks, {rule}": [row for row in ours if row.policy == rule] for rule in RULES}
        for name, found in lines.items():
            members = sorted([*dense, *found], key=lambda row: row.gmacs)
            axes.errorbar(
                [row.gmacs for row in members],
                [100 * row.miou for row in members],
                [100 * (row.miou_std or 0) for row in members],
                marker="o",
                capsize=3,
                label=f"{backbone}, {name}",
            )
    axes.set_xlabel("GMAC per image")
    axes.set_ylabel("mIoU [%]")
    axes.legend(fontsize=8)


def _repeat(networks: Networks, backbone: str, seed: int) -> list[EvalRow]:
    """Evaluate one seed of an architecture; only the first is timed."""
    networks.report(f"{backbone}, seed {seed}")
    dense = networks.dense(seed, backbone)
    entries = []
    for target in networks.targets(backbone):
        model = networks.segblocks(target, seed, backbone)
        for rule, budget in zip(RULES, (None, budget_of(model, target)), strict=True):
            entries.append(fixed(learned(model, budget), rule, budget or target))
    works = [*(work_of(target) for target in networks.targets(backbone)), HALF]
    entries += [static(dense.network, work) for work in works]
    timed = 0 if seed else networks.study.timed
    return evaluate(Dense(dense.network).eval(), networks.images.evaluated, entries, timed)


EXPERIMENT = Experiment(
    "Quality, cost and speed (tables I and IV, figure 7)",
    "SegBlocks by probability takes the blocks that the policy gives more than one half, as in the "
    "paper; by budget as many of the most probable ones as the target says, exactly and for every image. "
    "Reduced images are the same dense network on images resized to the same work; the paper trains a "
    "network for each size. Everything that is timed takes turns in one process; ± is the standard "
    "deviation over the seeds.",
    run,
    (draw,),
    PAPER,
)
