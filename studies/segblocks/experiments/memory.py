"""Peak memory of one run by batch size, dense and under policies, every one in a process of its own.

Source: table III of SegBlocks (Verelst and Tuytelaars, TPAMI 2022), there of PyTorch's allocator on a GPU.
Here it is resident memory: what a run adds to the weights, the image and whatever else was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveal.benchmark.memory import peak_mb
from foveal.fusion import faster
from foveal.kernels.abi import plain
from foveal.methods import Dense, SegBlocks
from foveal.methods.base import check_image
from foveal.policies import Policy
from studies.segblocks.engines import ENGINES, check_engine
from studies.segblocks.experiment import Experiment
from studies.segblocks.images import streets
from studies.segblocks.learned import budget_of, learned_policy
from studies.segblocks.networks import Networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCHES = 1, 2, 4


@dataclass(frozen=True)
class MemoryRow:
    """The peak of a run.

    Attributes:
        engine: "pytorch" or "native"; "paper" in drawings.
        run: "dense", or the name of a policy.
        batch: Number of images.
        work: Share of the dense network's; None where it is not known.
        peak_mb: What the run adds at its peak [MB].
    """

    engine: str
    run: str
    batch: int
    work: float | None
    peak_mb: float


@dataclass(frozen=True)
class PaperRow:
    """The peak of a run in the paper [MB]."""

    run: str
    batch: int
    peak_mb: float
    source: str = "SegBlocks (TPAMI 2022), table III: RN18, 1024x2048, PyTorch's peak on a GPU"


PAPER = [
    PaperRow(run, batch, peak)
    for run, peaks in (
        ("dense", (480, 880, 1681)),
        ("segblocks, share 0.4", (571, 901, 1586)),
        ("segblocks, share 0.2", (340, 721, 940)),
    )
    for batch, peak in zip(BATCHES, peaks, strict=True)
]


def run(networks: Networks) -> list[MemoryRow]:
    """Measure the peak of the dense network and of every target, by batch size."""
    batches = (1,) if networks.study.quick else BATCHES
    model = networks.plain(networks.targets()[0])
    policies: dict[str, Policy] = {}
    for target in networks.targets():
        own = networks.plain(target)
        policies[f"segblocks, share {target:g}"] = learned_policy(own, budget_of(own, target)).eval()
    images = streets(max(batches), networks.study.scale)[0]
    return measure(model.network, images, policies, batches)


def measure(
    model: nn.Module,
    images: Tensor,
    policies: Mapping[str, Policy],
    batches: Sequence[int] = BATCHES,
    engines: Sequence[str] = ENGINES,
) -> list[MemoryRow]:
    """Measure the peak of the dense network and of every policy, by batch size and engine.

    Args:
        model: Network from images [N, 3, H, W] to logits; it and the policies are pickled.
        images: [N, 3, H, W] in 0..1; a batch takes the first ones.
        policies: Policy by the name of its rows; one a budget.
        batches: Numbers of images.
        engines: "pytorch", "native", or both.

    Raises:
        ValueError: There are fewer images than the largest batch takes, or an engine is unknown.
    """
    check_image(images)
    if len(images) < max(batches):
        raise ValueError(
            f"a batch of {max(batches)} needs as many images, given {len(images)}; give more images"
        )
    runs: dict[str, Policy | None] = {"dense": None, **policies}
    rows = []
    for batch in batches:
        image = images[:batch].contiguous(memory_format=torch.channels_last)
        works = {run: _work(model, policy, image) for run, policy in runs.items()}
        for engine in engines:
            for run, policy in runs.items():
                # Freed memory goes back to the system: the peak is then what was in use, not what was kept.
                peak = peak_mb(fresh, model, policy, image, check_engine(engine), keep=False)
                rows.append(MemoryRow(engine, run, batch, works[run], round(peak, 1)))
    return rows


def fresh(model: nn.Module, policy: Policy | None, image: Tensor, engine: str) -> Callable[[], Tensor]:
    """Return one run up to the labels; called in the process that is measured."""
    native = engine == "native"
    network = faster(model.eval()) if native else model.eval()
    method = (Dense(network) if policy is None else SegBlocks(network, policy)).eval()
    image = image.contiguous(memory_format=torch.channels_last)

    def run() -> Tensor:
        if native:
            return method(image).labels
        with plain():
            return method(image).labels

    return run


@torch.inference_mode()
def _work(model: nn.Module, policy: Policy | None, image: Tensor) -> float:
    """Return the share of the dense work that a policy takes."""
    if policy is None:
        return 1.0
    return round(float(SegBlocks(model, policy).eval()(image).trace.work.mean()), 4)


def draw(rows: list[MemoryRow], axes: Axes) -> None:
    """Draw peak memory over the size of the batch, relative to the dense network of one image."""
    found = [*rows, *(MemoryRow("paper", row.run, row.batch, None, row.peak_mb) for row in PAPER)]
    engines = list(dict.fromkeys(row.engine for row in found))
    for engine, style in zip(engines, ("-", "-.", ":"), strict=False):
        mine = [row for row in found if row.engine == engine]
        unit = next(row.peak_mb for row in mine if row.run == "dense")
        for colour, name in enumerate(dict.fromkeys(row.run for row in mine)):
            batches = [row.batch for row in mine if row.run == name]
            peaks = [row.peak_mb / unit for row in mine if row.run == name]
            axes.plot(batches, peaks, style, marker="o", color=f"C{colour}", label=f"{engine}: {name}")
    axes.set_xticks(sorted({row.batch for row in found}))
    axes.set_xlabel("images in a batch")
    axes.set_ylabel("peak memory, dense with the smallest batch = 1")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")


EXPERIMENT = Experiment(
    "Peak memory (table III)",
    "What a run adds at its peak, in a process of its own.",
    run,
    (draw,),
    PAPER,
)
