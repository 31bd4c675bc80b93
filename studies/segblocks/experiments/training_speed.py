"""How fast training is on tiles: milliseconds a step by the share of the blocks at full resolution.

Source: Fig. 11 of SegBlocks (Verelst and Tuytelaars, TPAMI 2022).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveal.cost import alternate
from foveal.methods import SegBlocks, TrainableSegmenter
from foveal.objectives.segmentation import cross_entropy
from foveal.tiles import split
from studies.segblocks.engines import prepare_for_tiles, random_blocks
from studies.segblocks.experiment import Experiment
from studies.segblocks.images import streets
from studies.segblocks.learned import learned_policy
from studies.segblocks.networks import Networks
from studies.segblocks.paper import TRAINING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES = 0.2, 0.4, 0.6, 0.8, 1.0
Batch = tuple[Tensor, Tensor]
"""Images [N, 3, H, W] in 0..1 and labels [N, H, W]."""


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """A training step.

    Attributes:
        run: "dense", "segblocks" or a method's name.
        share: Of the blocks at full resolution; None if a method decides.
        work: Share of the dense network's; None if a method decides.
        ms: Median time [ms].
        p95: 95th percentile [ms].
        speedup: Over dense.
    """

    run: str
    share: float | None
    work: float | None
    ms: float
    p95: float
    speedup: float


def run(networks: Networks) -> list[StepRow]:
    """Time a training step, dense, on random blocks, and with the policy that learns."""
    study, target = networks.study, networks.targets()[0]
    model = networks.plain(target)
    batch = streets(2 if study.quick else study.batch, (study.crop, study.crop))
    method = SegBlocks(model.network, learned_policy(model))
    method.requires_grad_(True)
    repeat, shares = (1, (0.2, 0.6)) if study.quick else (5, SHARES)
    methods = {f"segblocks, target {target:g}, policy learns": method}
    return measure(networks.plain(target).network, batch, shares, study.block, repeat, methods)


def measure(
    model: nn.Module,
    batch: Batch,
    shares: Sequence[float] = SHARES,
    block: int = 128,
    repeat: int = 5,
    methods: Mapping[str, TrainableSegmenter] | None = None,
) -> list[StepRow]:
    """Time a training step, dense and on tiles of new random blocks every step, all in turns.

    A step is forward, cross entropy, backward and AdamW, with batch statistics. Weights are trained in
    copies; the given ones stay as they are.

    Args:
        model: Network from images [N, 3, H, W] to logits.
        batch: Images [N, 3, H, W] in 0..1 and labels [N, H, W].
        shares: Shares of the blocks at full resolution, the others at half.
        block: Side of a block [px], two tiles.
        repeat: Timed rounds.
        methods: Methods by name whose own loss is timed, too, such as one with a policy that learns.
    """
    dense = copy.deepcopy(model)
    cases: list[tuple[str, float | None, float | None]] = [("dense", 1.0, 1.0)]
    steps = [partial(train_step, *trained(dense), _dense_loss(dense, batch))]
    for share in shares:
        network = prepare_for_tiles(copy.deepcopy(model))
        plan = random_blocks(_size(batch), block, share)
        cases.append(("segblocks", round(plan.share(0), 4), round(float(plan.work), 4)))
        steps.append(partial(train_step, *trained(network), mixed_loss(network, batch, block, share)))
    for name, method in (methods or {}).items():
        twin = copy.deepcopy(method)
        cases.append((name, None, None))
        steps.append(partial(train_step, *trained(twin), partial(_own_loss, twin, batch)))
    times = alternate({str(number): step for number, step in enumerate(steps)}, repeat, warmup=1)
    return [
        StepRow(
            run=name,
            share=realised,
            work=work,
            ms=round(timing.median, 2),
            p95=round(timing.p95, 2),
            speedup=round(times["0"].median / timing.median, 4),
        )
        for (name, realised, work), timing in zip(cases, times.values(), strict=True)
    ]


def _size(batch: Batch) -> tuple[int, int]:
    return batch[0].shape[2], batch[0].shape[3]


def trained(module: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a module in training, with an optimiser that hardly moves it."""
    return module.train(), torch.optim.AdamW((p for p in module.parameters() if p.requires_grad), 1e-6)


def train_step(module: nn.Module, optimiser: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """Train a module for one step."""
    with torch.inference_mode(False), torch.enable_grad():  # timing runs without gradients
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()


def _dense_loss(network: nn.Module, batch: Batch) -> Callable[[], Tensor]:
    return lambda: cross_entropy(network(batch[0]), batch[1].long())


def mixed_loss(network: nn.Module, batch: Batch, block: int, share: float) -> Callable[[], Tensor]:
    """Return the loss on tiles; every call draws other blocks, so tables are built anew as in training."""
    draws = itertools.count()
    image, target = batch

    def loss() -> Tensor:
        plan = random_blocks(_size(batch), block, share, len(image), next(draws))
        return cross_entropy(network(split(image, plan)).dense(), target.long())

    return loss


def _own_loss(method: TrainableSegmenter, batch: Batch) -> Tensor:
    """Sum the terms of a method's loss; those without a gradient are there to be logged."""
    terms = [term for term in method.loss(batch[0], batch[1].long()).values() if term.requires_grad]
    return torch.stack(terms).sum()


def draw(rows: list[StepRow], axes: Axes) -> None:
    """Draw the time of a step over the share of the blocks at full resolution."""
    whole = [row for row in rows if row.share is None or row.run == "dense"]
    for colour, row in enumerate(whole, start=1):
        axes.axhline(row.ms, linestyle="--", color=f"C{colour}", label=row.run)
    found = sorted((row.share, row.ms) for row in rows if row.run == "segblocks" and row.share is not None)
    axes.plot([share for share, _ in found], [ms for _, ms in found], "o-", label="segblocks")
    axes.set_xlabel("share of the blocks at full resolution")
    axes.set_ylabel("a training step [ms]")
    axes.set_ylim(bottom=0)
    axes.legend()


EXPERIMENT = Experiment(
    "A training step (figure 11)",
    "Forward, backward and optimiser on random blocks, in turns with the dense step, in plain PyTorch.",
    run,
    (draw,),
    TRAINING,
)
