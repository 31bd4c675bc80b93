"""Losses and works of images at every threshold, by executed runs, and the risk table that comes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.calibration.engine import Engine
from foveal.calibration.risk.table import EVERY, RiskTable, choose_mixed
from foveal.methods import CoarseToFineConfig
from foveal.objectives.disagreement import disagreement, excess_error
from foveal.ops import tuning
from foveal.storage.labels import VOID

QUANTILES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""Thresholds of the risk table are these quantiles of the gain per tile."""


@dataclass(frozen=True)
class ImageLoss:
    """What a risk is of: the loss of an answer about one of several images.

    Attributes:
        dense: Labels of the dense network [H, W], of every image.
        weights: Weight of every class [K].
        labels: True classes [H, W] of every image, 255 where they are not known, for the error beyond the
            dense network's; None for the disagreement with it.
    """

    dense: Sequence[Tensor]
    weights: Tensor
    labels: Sequence[Tensor] | None = None

    def __call__(self, answer: Tensor, index: int) -> float:
        """Return the loss of labels [1, H, W] of an image, on the CPU."""
        dense = self.dense[index][None]
        if self.labels is None:
            return float(disagreement(answer, dense, self.weights)[0])
        target = self.labels[index]  # images may have been padded for the network
        room = (0, dense.shape[2] - target.shape[1], 0, dense.shape[1] - target.shape[0])
        target = F.pad(target, room, value=VOID)[None]
        return float(excess_error(answer, dense, target, self.weights)[0])

    def known(self, indices: Sequence[int]) -> list[int]:
        """Return those of the images whose loss can be known: some pixel is labelled, if labels count."""
        labels = self.labels
        return [k for k in indices if labels is None or bool((labels[k] != VOID).any())]


@dataclass(frozen=True)
class Measured:
    """What was measured on n images at L settings, the dense network first.

    Attributes:
        losses: Losses [n, L].
        works: Shares of the dense work [n, L], all passes included.
        remaining: Gain per pixel of what was not refined [n, L].
    """

    losses: Tensor
    works: Tensor
    remaining: Tensor


@dataclass(frozen=True)
class Runs:
    """Runs of images at every threshold, as they will run later: as a program if there is one.

    Attributes:
        engine: What runs the network.
        config: How tiles are refined.
        thresholds: Least gains of a refined tile, growing.
        images: Returns the image [1, C, H, W] of a number, as the engine takes it.
        loss: Loss of an answer.
        report: Told what is done, how far it is, and the total.
    """

    engine: Engine
    config: CoarseToFineConfig
    thresholds: Sequence[float]
    images: Callable[[int], Tensor]
    loss: ImageLoss
    report: Callable[[str, int, int], None] = lambda name, done, total: None

    @torch.inference_mode()
    def measure(self, indices: Sequence[int], name: str) -> Measured:
        """Run some of the images at every threshold."""
        configs = [replace(self.config, budget=1.0, threshold=t) for t in self.thresholds]
        methods = [self.engine.make("coarse_to_fine", each) for each in configs]
        shape = len(indices), 1 + len(methods)
        losses, remaining = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
        works = torch.ones(shape, dtype=torch.float64)
        for row, index in enumerate(indices):
            image = self.images(index)
            with tuning() if row == 0 else nullcontext():
                for k, method in enumerate(methods, start=1):
                    answer = method(image)
                    losses[row, k] = self.loss(answer.labels.cpu(), index)
                    works[row, k] = answer.trace.work[0]
                    remaining[row, k] = method.remaining_gain(image, answer)[0]
            self.report(name, row + 1, len(indices))
        return Measured(losses, works, remaining)


def spaced(indices: Sequence[int], count: int) -> list[int]:
    """Return at most so many of the indices, evenly spaced."""
    kept = min(count, len(indices))
    return [indices[k * len(indices) // kept] for k in range(kept)]


def spread_thresholds(rates: Tensor) -> list[float]:
    """Return thresholds at `QUANTILES` of the gains per tile, rising, each once."""
    found = torch.quantile(rates, torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
    return sorted({float(f"{q:.4g}") for q in found})


def divide(count: int) -> tuple[list[int], list[int]]:
    """Divide images into every fourth, to choose settings, and those that calibrate; one does both."""
    chosen = list(range(0, count, EVERY))
    return chosen, [index for index in range(count) if index % EVERY] or chosen


def calibrate_risk(runs: Runs, chosen: Sequence[int], held: Sequence[int]) -> RiskTable:
    """Choose what dense is mixed with on some images, and make the risk table of the others.

    Raises:
        ValueError: The risk is of labels, and none of the others has any.
    """
    known, calibrating = runs.loss.known(chosen), runs.loss.known(held)
    if not calibrating:
        raise ValueError(
            f"none of the {len(held)} images that calibrate the risk has a labelled pixel; give more "
            "labelled images, or a risk of disagreement with dense, which needs none"
        )
    found = runs.measure(calibrating, "risk")
    other = runs.measure(known, "what is mixed") if known and known != calibrating else found
    mixed = choose_mixed(other.losses, other.works, len(calibrating))
    return RiskTable.fit([0.0, *runs.thresholds], found.works, found.losses, found.remaining, mixed)
