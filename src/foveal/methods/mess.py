"""MESS: an easy image leaves the network at an early exit, a hard one goes to its end.

Adapts   depth, image by image.
Decides  the share of the pixels that an exit is sure of; or the budget alone.
Knob     budget, the deepest exit that it pays for; and threshold, the confidence at which an image leaves.
Source   Kouris, Venieris, Laskaridis and Lane, "Multi-Exit Semantic Segmentation Networks", ECCV 2022.
Differs  of any network, cut where all of it goes through. Heads learn all in every step, at a share of the
         weight, and not one in turns, which is the same in expectation. What the paper's weight of pixels
         beside edges is, its abstract does not say: `edge_weight`, half by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.exits import Exits
from foveal.geometry.plan import check_budget
from foveal.methods.config import Aim, MethodConfig, setting
from foveal.methods.prediction import Prediction, Step, Trace, check_logits
from foveal.methods.staged import EXITS, ROUNDING, StagedSegmenter, StagedTraining
from foveal.objectives.segmentation import cross_entropy, filtered_divergence

EDGE = 8
"""Distance from a predicted edge within which pixels are beside it [px]."""


@dataclass(frozen=True)
class MessConfig(MethodConfig):
    """Settings of MESS."""

    threshold: float | None = setting(
        None, "Share of the pixels that must be sure for an image to leave; no exit is asked if absent.", 0, 1
    )
    pixel_threshold: float = setting(0.9, "Probability from which a pixel is sure.", 0, 1)
    exits: str = setting("", EXITS)
    edge_weight: float = setting(0.5, "Weight of pixels beside a predicted edge; 1 as all others.", 0, 1000)

    @property
    def time_key(self) -> tuple[object, ...]:
        """Which exits there are, and whether they are asked."""
        return self.exits, self.threshold is None

    @property
    def is_dense(self) -> bool:
        """Whether every image goes to the end: a threshold may let some leave."""
        return super().is_dense and (self.threshold is None or self.threshold >= 1)


class MessTraining(StagedTraining):
    """Section [method] of a recipe for MESS."""

    distillation: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of the end's answer, where it is right, against the labels; for heads on a frozen network."""


class Mess(StagedSegmenter):
    """Runs an ordinary network up to the exit that is good enough for an image.

    Args:
        network: Module from images [N, C, H, W] to logits [N, K, h, w].
        config: Budget, and when an image leaves.
        exits: Heads that were trained with the network; fresh ones if absent.
        dense_modules: Names of the submodules that must see the whole map; the network's own if absent.

    Raises:
        ValueError: The network cannot be cut into stages.
    """

    Config = MessConfig
    Training = MessTraining
    decides_from = "the answer at an exit of the network"
    decides_for = "image"

    def __init__(
        self,
        network: nn.Module,
        config: MessConfig,
        exits: Exits | None = None,
        dense_modules: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(network, exits, config.exits, dense_modules)
        self.config, self.budget = config, check_budget(config.budget)
        self.training_part = MessTraining()

    @classmethod
    def for_training(cls, network: nn.Module, training: MessTraining, aim: Aim) -> Self:
        """Train network and heads together, or the heads on the network as it is."""
        method = cls(network, MessConfig(), cls.exits_for(network, training, aim))
        method.aim, method.training_part = aim, training
        return method

    def stream(self, image: Tensor) -> Iterator[Prediction]:
        """Yield a prediction at every exit that is asked; the last is that of `forward`."""
        size, last = self._checked(image), self._deepest()
        asked = [*self._asked_before(last), last]
        if asked == [len(self.heads)]:
            yield Prediction(self._end(image, size), size, _trace([1.0] * len(image)))
            return
        inside, work = torch.arange(len(image)), [0.0] * len(image)
        values, answer = self.started(image), torch.zeros(0)
        for stage in range(last + 1):
            values = self.after(stage, values)
            head = self.head_shares[stage] if stage in asked and stage < len(self.heads) else 0.0
            share = self.shares[stage] + head
            for n in inside.tolist():
                work[n] += share
            if stage not in asked:
                continue
            found = self._logits(stage, values, size)
            check_logits(found)
            answer = answer.index_copy(0, inside.to(found.device), found) if answer.numel() else found
            yield Prediction(answer, size, _trace(work))
            stays = ~self.leaves(found) if stage < last else torch.zeros(0, dtype=torch.bool)
            if not bool(stays.any()):
                return
            inside = inside[stays.cpu()]
            values = {name: _of(value, stays) for name, value in values.items()}

    def leaves(self, logits: Tensor) -> Tensor:
        """Say which images an exit is sure enough of [N], by its logits [N, K, h, w] at the finest stride."""
        threshold = self.config.threshold
        return self.confidence(logits) >= (2.0 if threshold is None else threshold)

    def confidence(self, logits: Tensor) -> Tensor:
        """Return the share of the pixels that an exit is sure of [N], those beside edges weighing less."""
        sure, label = logits.detach().float().softmax(1).max(1)
        weight = torch.where(self._edges(label), self.config.edge_weight, 1.0)
        whole = weight.sum((1, 2)).clamp(min=1e-6)
        return (weight * (sure >= self.config.pixel_threshold)).sum((1, 2)) / whole

    def decide(self, image: Tensor) -> None:
        """Return None: whole images run."""
        self._checked(image)

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the cheapest exit."""
        return self.work_of([0])

    def work_of(self, asked: Sequence[int]) -> float:
        """Return the share of the dense work up to the last of some exits, with the heads of all of them.

        Args:
            asked: Numbers of exits from 0, in order; the end of the network has the number after the last.
        """
        heads = sum(self.head_shares[k] for k in asked if k < len(self.heads))
        return sum(self.shares[: asked[-1] + 1]) + heads

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy of the end and of every exit; on a frozen network that of the exits alone.

        There the end teaches the exits too, where it is right.

        Source: positive filtering distillation, section 3.3 of the paper.
        """
        early, final = self.exit_logits(image)
        weight, hardest, part = self.aim.class_weight, self.aim.hardest, self.training_part
        terms = {} if part.frozen else {"final": cross_entropy(final, target, weight, hardest)}
        alpha = part.distillation if part.frozen else 0.0
        for number, logits in enumerate(early):
            labelled = cross_entropy(logits, target, weight, hardest) * (1 - alpha) / len(early)
            taught = (
                filtered_divergence(logits, final.detach(), target) * alpha / len(early) if alpha else 0.0
            )
            terms[f"exit_{number + 1}"] = labelled + taught
        return terms

    def _deepest(self) -> int:
        """Return the last stage that the budget pays for.

        Raises:
            ValueError: It does not even pay for the first exit.
        """
        for last in range(len(self.heads), -1, -1):
            if self.budget >= 1 or self.work_of([*self._asked_before(last), last]) <= self.budget + ROUNDING:
                return last
        raise ValueError(
            f"budget is {self.budget:g} and the first exit takes {self.least_work((1, 1)):.3g} of the dense "
            "work; raise the budget, or train exits at earlier places"
        )

    def _asked_before(self, last: int) -> list[int]:
        """Return the exits before a stage that are asked; none if no image can leave."""
        threshold = self.config.threshold
        return [] if threshold is None or threshold >= 1 else list(range(last))

    def _end(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        logits = self.to_the_end(image)
        check_logits(logits)
        return self.enlarged(logits, self.stages.stride, size)

    def _logits(self, stage: int, values: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
        return self.enlarged(self.answer_at(stage, values), self.stride_at(stage), size)

    def _edges(self, label: Tensor) -> Tensor:
        """Mark the samples [N, h, w] beside which the label changes."""
        reach = max(1, EDGE // self.finest)
        values = label[:, None].float()
        most = F.max_pool2d(values, 2 * reach + 1, 1, reach)
        return (most != -F.max_pool2d(-values, 2 * reach + 1, 1, reach))[:, 0]


def _trace(work: list[float]) -> Trace:
    return Trace((Step("network", torch.tensor(work, dtype=torch.float64)),))


def _of(value: object, images: Tensor) -> object:
    """Return a value for some of the images."""
    batch = isinstance(value, Tensor) and value.ndim and len(value) == len(images)
    return value[images.to(value.device)] if batch and isinstance(value, Tensor) else value
