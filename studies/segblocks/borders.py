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
from typing import Any

import torch
from torch import Tensor, nn

from foveal.cost import alternate
from foveal.data.dataset import Dataset
from foveal.evaluation.metrics import Confusion
from foveal.geometry.layout import BORDERS, Borders
from foveal.geometry.plan import Plan
from foveal.kernels.abi import plain
from foveal.ops import classify
from foveal.tiles import run_dense, split

SOURCE = "SegBlocks (TPAMI 2022), table IX: RN18, Cityscapes val, share 0.4, GTX 1080 Ti"
PAPER: list[dict[str, Any]] = [
    {"borders": "average", "miou": 0.763, "seconds": 5.8, "pad_seconds": 0.68, "source": SOURCE},
    {"borders": "strided", "miou": 0.756, "seconds": 5.7, "pad_seconds": 0.63, "source": SOURCE},
    {"borders": "zero", "miou": 0.702, "seconds": 5.2, "pad_seconds": None, "source": SOURCE},
]
DENSE = "dense"


@dataclass
class _Tally:
    """What was found with one rule."""

    confusion: Confusion
    agreement: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def borders(
    model: nn.Module,
    dataset: Dataset,
    plans_for: Callable[[Tensor], Plan],
    limit: int | None = None,
    timed: int = 4,
) -> list[dict[str, Any]]:
    """Measure every rule for borders on the same images and plans, and the dense network beside.

    Args:
        model: Network from images [N, 3, H, W] to logits.
        dataset: Labelled images.
        plans_for: Makes the plan of an image [1, 3, H, W].
        limit: Use the first images only.
        timed: Images that are timed, all rules alternating on each; 0 for none.

    Returns:
        Rows with the keys borders ("dense" or the rule), miou, agreement (with dense), work, ms, images.
    """
    network = _ready(model)
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


def _ready(model: nn.Module) -> nn.Module:
    """Let the modules that look at the whole map see it on tiles, too."""
    for name in getattr(model, "dense_modules", ()):
        run_dense(model.get_submodule(name))
    return model.eval()


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


def _row(name: str, tally: _Tally, work: float) -> dict[str, Any]:
    return {
        "borders": name,
        "miou": round(tally.confusion.miou, 4),
        "agreement": round(fmean(tally.agreement), 5),
        "work": round(work, 4),
        "ms": round(median(tally.times), 2) if tally.times else None,
        "images": len(tally.agreement),
    }


def draw_borders(rows: list[dict[str, Any]], axes: Any) -> None:
    """Draw the mIoU of every rule, the paper's beside it, on matplotlib axes."""
    for offset, label, found in ((-0.2, "here", rows), (0.2, "paper (Cityscapes, RN18)", PAPER)):
        miou = {row["borders"]: 100 * row["miou"] for row in found}
        places = [k + offset for k, rule in enumerate(BORDERS) if rule in miou]
        bars = axes.bar(places, [miou[rule] for rule in BORDERS if rule in miou], 0.38, label=label)
        axes.bar_label(bars, fmt="%.1f", padding=2)
        if DENSE in miou:
            axes.axhline(miou[DENSE], color="0.4", linestyle="--", linewidth=1, label="dense, here")
    axes.set_xticks(range(len(BORDERS)), BORDERS)
    axes.set_xlabel("borders of tiles")
    axes.set_ylabel("mIoU [%]")
    axes.legend(ncols=3, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
