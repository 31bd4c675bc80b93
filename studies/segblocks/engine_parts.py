"""The parts about the engine, with the networks and sizes of a study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from foveal.data.synthetic import street
from foveal.hub.checkpoint import Model
from foveal.methods import SegBlocks
from foveal.policies import Learned, Policy, View
from studies.segblocks import borders as borders_part
from studies.segblocks import memory as memory_part
from studies.segblocks import residual_block as block_part
from studies.segblocks import shares as shares_part
from studies.segblocks import training_speed as speed_part
from studies.segblocks.study import Rows
from studies.segblocks.workshop import Workshop, budget_of, learned

STREET = 1000
"""Seed of the first scene of a batch."""


def borders(workshop: Workshop) -> Rows:
    """Swap the rule for borders under the network and the policy of the first target."""
    study, model = workshop.study, workshop.plain(workshop.targets()[0])
    policy = learned(model).policy
    limit, timed = (4, 1) if study.quick else (len(workshop.data), study.timed)
    return borders_part.borders(model.network, workshop.data, lambda image: policy(View(image)), limit, timed)


def memory(workshop: Workshop) -> Rows:
    """Measure the peak of the dense network and of every target, by batch size."""
    batches = (1,) if workshop.study.quick else memory_part.BATCHES
    model = workshop.plain(workshop.targets()[0])
    policies: dict[str, Policy] = {
        f"segblocks, share {target:g}": _exact(workshop.plain(target), target)
        for target in workshop.targets()
    }
    images = _streets(max(batches), workshop.study.scale)[0]
    return memory_part.memory(model.network, images, policies, batches)


def shares(workshop: Workshop) -> Rows:
    """Measure where the time of a run of the first target goes."""
    target = workshop.targets()[0]
    model = workshop.plain(target)
    image = _streets(1, workshop.study.scale)[0]
    return shares_part.shares(model.network, image, _exact(model, target), 2 if workshop.study.quick else 10)


def residual_block(workshop: Workshop) -> Rows:
    """Measure one residual block over block size and share."""
    if workshop.study.quick:
        return block_part.residual_block(
            (64, 128), blocks=(4, 8, 16, 32), shares=(0, 0.25, 0.75, 1), repeat=3
        )
    return block_part.residual_block()


def training_speed(workshop: Workshop) -> Rows:
    """Time a training step, dense, on random blocks, and with the policy that learns."""
    study, target = workshop.study, workshop.targets()[0]
    model = workshop.plain(target)
    batch = _streets(2 if study.quick else study.batch, (study.crop, study.crop))
    assert model.policy is not None, "models of the study have a policy"
    method = SegBlocks(model.network, Learned(model.policy, model.policy.block // 2))
    method.requires_grad_(True)
    repeat, parts = (1, (0.2, 0.6)) if study.quick else (5, speed_part.SHARES)
    name = f"segblocks, target {target:g}, policy learns"
    return speed_part.training_speed(
        workshop.plain(target).network, batch, parts, study.block, repeat, {name: method}
    )


def training_curves(workshop: Workshop) -> Rows:
    """Read how the loss fell in the given runs, or train a network in both ways from nothing."""
    return speed_part.training_curves(_runs(workshop))


def curve_summary(rows: Rows) -> Rows:
    """Say where every curve ends, and when it first was where the worst of them ends."""
    names = list(dict.fromkeys(row["run"] for row in rows))
    last = {name: [row["loss"] for row in rows if row["run"] == name][-5:] for name in names}
    worst = max(fmean(losses) for losses in last.values())
    needed = {row["run"]: row["steps"] for row in speed_part.steps_needed(rows, worst)}
    return [
        {
            "run": name,
            "steps": max(row["step"] for row in rows if row["run"] == name),
            "loss at the end": round(fmean(last[name]), 4),
            f"steps to a loss of {worst:.3f}": needed[name],
        }
        for name in names
    ]


def _runs(workshop: Workshop) -> dict[str, Path]:
    """Find the logs of the given models; train a dense network and SegBlocks alike if either has none."""
    study = workshop.study
    dense, ours = dict(_logged(study.models)), dict(_logged(study.segblocks))
    if dense and ours:
        return dense | ours
    found = {"dense": workshop.from_nothing(None)}
    return found | {
        f"segblocks, target {target:g}": workshop.from_nothing(target) for target in study.targets
    }


def _logged(names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name in names:
        folder = Path(name) if Path(name).is_dir() else Path(name).parent
        if (folder / "log.jsonl").is_file():
            yield folder.name, folder


def _exact(model: Model, target: float) -> Learned:
    assert model.policy is not None, "models of the study have a policy"
    return Learned(model.policy, model.policy.block // 2, budget_of(model, target)).eval()


def _streets(count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Draw scenes of a size [px]: images [N, 3, H, W] and labels [N, H, W]."""
    images, labels = zip(*(street(STREET + k, size) for k in range(count)), strict=True)
    return torch.stack(images), torch.stack(labels)
