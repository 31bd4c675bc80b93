"""What a tile may see of its neighbours: average, strided or no samples, by quality and time.

Nothing is trained anew: the rule is swapped under trained weights. All rules run in plain PyTorch, for the C
kernels serve the average only. Bilinear enlargement reads borders as convolutions do, so zeros are seen there
too.
Source: table IX and section 3.2.2 of SegBlocks (Verelst and Tuytelaars, TPAMI 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveal.cost import alternate
from foveal.data.dataset import Dataset
from foveal.evaluation.metrics import Confusion
from foveal.geometry.layout import BORDERS, Borders
from foveal.geometry.plan import Plan
from foveal.kernels.abi import plain
from foveal.ops import classify
from foveal.policies import View
from foveal.tiles import split
from studies.segblocks.engines import prepare_for_tiles
from studies.segblocks.experiment import Experiment
from studies.segblocks.learned import learned
from studies.segblocks.networks import Networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class BorderRow:
    """A rule for borders.

    Attributes:
        borders: The rule; "dense" for the dense network.
        miou: Mean IoU, 0..1.
        agreement: Share of the pixels with the dense network's label.
        work: Share of the dense network's.
        ms: Time of an image [ms]; None if none was timed.
        images: Number of images.
    """

    borders: str
    miou: float
    agreement: float
    work: float
    ms: float | None
    images: int


@dataclass(frozen=True)
class PaperRow:
    """A rule for borders in the paper; times of a pass over all images and of its borders [s]."""

    borders: str
    miou: float
    seconds: float
    pad_seconds: float | None
    source: str = "SegBlocks (TPAMI 2022), table IX: RN18, Cityscapes val, share 0.4, GTX 1080 Ti"


PAPER = [
    PaperRow("average", 0.763, 5.8, 0.68),
    PaperRow("strided", 0.756, 5.7, 0.63),
    PaperRow("zero", 0.702, 5.2, None),
]


@dataclass
class _Tally:
    """What was found with one rule."""

    confusion: Confusion
    agreement: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def run(networks: Networks) -> list[BorderRow]:
    """Swap the rule for borders under the network and the policy of the first target."""
    study, data = networks.study, networks.images.evaluated
    model = networks.plain(networks.targets()[0])
    policy = learned(model).policy
    limit, timed = (4, 1) if study.quick else (len(data), study.timed)
    return measure(model.network, data, lambda image: policy(View(image)), limit, timed)


def measure(
    model: nn.Module,
    dataset: Dataset,
    plans_for: Callable[[Tensor], Plan],
    limit: int | None = None,
    timed: int = 4,
) -> list[BorderRow]:
    """Measure every rule for borders on the same images and plans, and the dense network beside.

    Args:
        model: Network from images [N, 3, H, W] to logits.
        dataset: Labelled images.
        plans_for: Makes the plan of an image [1, 3, H, W].
        limit: Use the first images only.
        timed: Images that are timed, all rules alternating on each; 0 for none.
    """
    network = prepare_for_tiles(model).eval()
    count = min(len(dataset), limit or len(dataset))
    tallies = {name: _Tally(Confusion(len(dataset.classes))) for name in (DENSE, *BORDERS)}
    works = []
    for index in range(count):
        image, target = dataset[index]
        image = image[None].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), plain():
            plan = plans_for(image)
            runs = _runs(network, image, plan)
            _count({name: run() for name, run in runs.items()}, target[None], tallies)
            if index < timed:
                for name, timing in alternate(runs, repeat=3, warmup=1).items():
                    tallies[name].times.append(timing.median)
        works.append(float(plan.work.mean()))
    return [_row(name, tally, 1.0 if name == DENSE else fmean(works)) for name, tally in tallies.items()]


def _runs(network: nn.Module, image: Tensor, plan: Plan) -> dict[str, Callable[[], Tensor]]:
    size = (image.shape[2], image.shape[3])

    def on_tiles(rule: Borders) -> Tensor:
        return classify(network(split(image, plan, borders=rule)).dense(), size)

    return {
        DENSE: lambda: classify(network(image), size),
        **{rule: partial(on_tiles, rule) for rule in BORDERS},
    }


def _count(labels: dict[str, Tensor], target: Tensor, tallies: dict[str, _Tally]) -> None:
    for name, found in labels.items():
        tallies[name].confusion.add(found, target)
        tallies[name].agreement.append(float((found == labels[DENSE]).double().mean()))


def _row(name: str, tally: _Tally, work: float) -> BorderRow:
    return BorderRow(
        borders=name,
        miou=round(tally.confusion.miou, 4),
        agreement=round(fmean(tally.agreement), 5),
        work=round(work, 4),
        ms=round(median(tally.times), 2) if tally.times else None,
        images=len(tally.agreement),
    )


def draw(rows: list[BorderRow], axes: Axes) -> None:
    """Draw the mIoU of every rule, the paper's beside it."""
    lines: tuple[tuple[float, str, list[BorderRow] | list[PaperRow]], ...]
    lines = (-0.2, "here", rows), (0.2, "paper (Cityscapes, RN18)", PAPER)
    for offset, label, found in lines:
        miou = {row.borders: 100 * row.miou for row in found}
        places = [k + offset for k, rule in enumerate(BORDERS) if rule in miou]
        bars = axes.bar(places, [miou[rule] for rule in BORDERS if rule in miou], 0.38, label=label)
        axes.bar_label(bars, fmt="%.1f", padding=2)
        if DENSE in miou:
            axes.axhline(miou[DENSE], color="0.4", linestyle="--", linewidth=1, label="dense, here")
    axes.set_xticks(range(len(BORDERS)), BORDERS)
    axes.set_xlabel("borders of tiles")
    axes.set_ylabel("mIoU [%]")
    axes.legend(ncols=3, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))


EXPERIMENT = Experiment(
    "What a tile sees of its neighbours (table IX)",
    "The rule is swapped under trained weights, nothing is trained anew; all rules run in plain PyTorch.",
    run,
    (draw,),
    PAPER,
)
