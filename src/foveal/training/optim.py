"""Schedule of a run, its optimiser, and the moving average of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from foveal.methods import TrainableSegmenter

OPTIMISERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
"""Weight decay is decoupled in adamw, and part of the gradient (L2) in adam."""

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What both remember about a parameter."""

Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and with which optimiser to train.

    Attributes:
        steps: Optimiser steps.
        learning_rate: Peak learning rate.
        encoder_factor: Learning rate of the encoder, as a share of it.
        weight_decay: Weight decay of everything but norms and biases.
        warmup: Steps until the peak.
        average: Decay of the moving average of the weights.
        freeze_norms: Whether the statistics of the network's norms stay as they are.
        bf16: Whether to compute in bfloat16.
        seed: Seed of what is drawn in a step.
        save_every: Steps between checkpoints.
        policy_factor: Learning rate of a learned decision, as a share of the peak.
        encoder_decay_factor: Weight decay of the encoder, as a share of the others'.
        schedule_end: Learning rate at the end, as a share of the peak.
        optimiser: Name in `OPTIMISERS`.
        betas: Its decays of the first and the second moment.
    """

    steps: int
    learning_rate: float = 5e-4
    encoder_factor: float = 0.25
    weight_decay: float = 1e-2
    warmup: int = 200
    average: float = 0.999
    freeze_norms: bool = False
    bf16: bool = False
    seed: int = 0
    save_every: int = 250
    policy_factor: float = 1.0
    encoder_decay_factor: float = 1.0
    schedule_end: float = 0.01
    optimiser: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a cosine down to the end's share."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * warm * (self.schedule_end + (1 - self.schedule_end) * cosine)


def create_optimiser(method: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Make the optimiser of everything in a method that is trained.

    Parameters of a module named encoder, and those that decide, have their own factors; norms and biases do
    not decay, nor does what the method says.

    Raises:
        ValueError: The optimiser is unknown, or the method has nothing to train.
    """
    if schedule.optimiser not in OPTIMISERS:
        raise ValueError(f"no optimiser named '{schedule.optimiser}'; available: {', '.join(OPTIMISERS)}")
    known = method if isinstance(method, TrainableSegmenter) else TrainableSegmenter
    deciding, undecayed = known.deciding, known.undecayed
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained(method).items():
        decays = parameter.ndim > 1 and not name.startswith(undecayed)
        factor, decay = 1.0, schedule.weight_decay if decays else 0.0
        if ".encoder." in name:
            factor, decay = schedule.encoder_factor, decay * schedule.encoder_decay_factor
        elif name.startswith(deciding):
            factor = schedule.policy_factor
        groups.setdefault((factor, decay), []).append(parameter)
    if not groups:
        raise ValueError("the method has no parameter that requires a gradient; there is nothing to train")
    made: list[dict[str, Any]] = [
        {"params": members, "factor": factor, "weight_decay": decay, "lr": 0.0}
        for (factor, decay), members in groups.items()
    ]
    return OPTIMISERS[schedule.optimiser](made, betas=schedule.betas)


def trained(method: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are optimised, by name."""
    return {name: value for name, value in method.named_parameters() if value.requires_grad}


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to its share of `rate`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def create_average(method: nn.Module, decay: float) -> AveragedModel:
    """Make the moving average of a method's parameters and buffers; it starts as a copy of them.

    With n averages taken, the decay is n / (n + 9) until that exceeds `decay`, so that the first weights are
    soon forgotten. What is no floating point number is copied.

    Args:
        method: What is averaged; call `update_parameters(method)` after every step.
        decay: Share of the average that a step leaves, at most.
    """

    @torch.no_grad()
    def move(average: Tensors, values: Tensors, count: Tensor | int) -> None:
        if average[0].is_floating_point():
            now = min(decay, int(count) / (int(count) + 9))
            get_ema_multi_avg_fn(now)(average, values, count)
        else:
            for old, new in zip(average, values, strict=True):
                old.copy_(new)

    found = AveragedModel(method, multi_avg_fn=move, use_buffers=True)
    resume_average(found, 0)
    return found


def resume_average(average: AveragedModel, step: int) -> None:
    """Let an average continue after `step` steps; the weights that it starts from count as one more."""
    average.n_averaged.fill_(step + 1)
