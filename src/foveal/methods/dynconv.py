"""DynConv: residual units are computed at the positions that their gates open, elsewhere the shortcut stands.

Adapts   which positions of every residual unit are computed.
Decides  a small gate per unit, trained with the network.
Knob     budget, the share of the dense work; or threshold, the value of a gate from which it is open.
Source   Verelst and Tuytelaars, "Dynamic Convolutions: Exploiting Spatial Sparsity for Faster Inference",
         CVPR 2020.
Differs  positions are computed alone for any network with residual units, 3x3 convolutions included. The
         budget is a share of all that the network computes, gates, stem and decoder among it, and it is kept
         for every image: each unit has its part of what is left, and the highest gates get it. Gates end
         with a norm. With `side` a gate decides for squares of positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from foveal.gates import GatedNetwork, Gates, MaskedNetwork
from foveal.gates.gates import MOST_SIDE, squared
from foveal.gates.positions import Branch, Choice, open_best, open_where
from foveal.gates.units import seen
from foveal.geometry.plan import check_budget
from foveal.methods.base import TrainableSegmenter, check_image, mark_dense_modules
from foveal.methods.config import Aim, MethodConfig, MethodTraining, Resources, setting
from foveal.methods.prediction import Prediction, Step, Trace, check_logits
from foveal.objectives.gates import GateBudget, straight_through
from foveal.objectives.segmentation import cross_entropy
from foveal.policies.controls import noise
from foveal.storage.names import find

CHOICES = ("gates", "random")
"""Who chooses positions."""
ROUNDING = 1e-9
"""Shares of work that differ by less are equal."""
UNTRAINED = 0
"""Seed of gates that nobody has trained."""
LEAST, MOVE = 0.02, 0.02
"""Least share of its work that a unit is expected to want; how fast that follows what is seen in training."""


@dataclass(frozen=True)
class DynConvConfig(MethodConfig):
    """Settings of DynConv."""

    threshold: float | None = setting(
        None, "Value of a gate from which it is open, 0 as trained; as many as the budget pays for if absent."
    )
    choice: str = setting("gates", "Who chooses positions: gates, or random, as many of them, as a control.")
    side: int | None = setting(
        None, "Positions on the side of a square that is decided as one; as trained if absent.", 1, MOST_SIDE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        find(self.choice, dict.fromkeys(CHOICES), "chooser of positions")

    @property
    def is_dense(self) -> bool:
        """Whether everything is computed: with a threshold the gates say, whatever the budget."""
        return super().is_dense and self.threshold is None

    @property
    def time_key(self) -> tuple[object, ...]:
        """Whether positions are ranked, and the squares."""
        return self.threshold is None, self.side, self.choice


class DynConvTraining(MethodTraining):
    """Section [method] of a recipe for DynConv."""

    budget: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Share of the network's work that the gates learn to spend, all outside of residual units included."""
    kind: Literal["squeeze", "pointwise"] = "squeeze"
    """Kind of every gate: a 3x3 convolution and the mean of the map, or a 1x1 convolution."""
    side: Annotated[int, Field(ge=1, le=MOST_SIDE)] = 1
    """Positions on the side of a square that is decided as one."""
    weight: Annotated[float, Field(ge=0, le=1e4)] = 10.0
    """Weight of the budget's term."""
    temperature: Annotated[float, Field(gt=0, le=1)] = 0.66
    """Of the relaxed gates; above 1 training is unstable."""
    narrow: Annotated[float, Field(ge=0, le=1)] = 0.33
    """Share of the steps over which the bounds of single units open."""
    quiet: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the steps, the last ones, without noise in the gates."""
    frozen: bool = False
    """Whether the network stays as it is, and only the gates learn."""

    @property
    def freezes_network(self) -> bool:
        """Whether only the gates learn."""
        return self.frozen

    @property
    def trained_budget(self) -> float:
        """Return the budget that the gates learn."""
        return self.budget


class DynConv(TrainableSegmenter):
    """Runs an ordinary network, its residual units at the positions that their gates open.

    Args:
        network: Module from images [N, C, H, W] to logits [N, K, h, w].
        config: Budget, and who opens how many positions.
        gates: Gates that were trained with the network; fresh ones if absent.
        dense_modules: Names of the submodules that must see the whole map; the network's own if absent.

    Attributes:
        gates: The gates, which belong to its weights.
        fixed: Share of the dense work outside of residual branches, gates included.
        aim: What training minimises.

    Raises:
        ValueError: The network cannot be traced, has no residual units, or the gates are of another one.
    """

    Config = DynConvConfig
    Training = DynConvTraining
    decides_from = "the maps inside the network"
    decides_for = "position"
    needs = Gates
    deciding = undecayed = ("gates.",)
    done: Tensor

    def __init__(
        self,
        network: nn.Module,
        config: DynConvConfig,
        gates: Gates | None = None,
        dense_modules: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        mark_dense_modules(network, dense_modules)
        self.network, self.config = network, config
        self.budget = check_budget(config.budget)
        made = GatedNetwork(network)
        self._made: tuple[tuple[object, ...], GatedNetwork] = _state(network), made
        self._masked: tuple[MaskedNetwork, ...] = ()
        self.gates = Gates.of(made.units, seed=UNTRAINED) if gates is None else gates
        self.gates.check_fit(made.units)
        like = next(network.parameters(), next(network.buffers(), torch.empty(0)))
        self.gates.to(like)
        self.side = config.side or self.gates.config.side
        self.units, self.shares = made.units, made.shares
        self.fixed = made.outside + self.gates.macs(made.units) / made.macs_per_image
        self.aim, self.training_part = Aim(), DynConvTraining()
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    @classmethod
    def from_config(cls, network: nn.Module, config: Any, resources: Resources | None = None) -> Self:
        """Take the gates that were trained with the network, if there are any."""
        return cls(network, config, None if resources is None else resources.part(Gates))

    @classmethod
    def for_training(cls, network: nn.Module, training: DynConvTraining, aim: Aim) -> Self:
        """Train network and gates, or gates alone.

        Raises:
            ValueError: The budget does not pay for what is outside of residual units.
        """
        mark_dense_modules(network)
        network.requires_grad_(not training.frozen)
        made = GatedNetwork(network)
        share = (training.budget - made.outside) / (1 - made.outside)
        if share < LEAST:
            raise ValueError(
                f"method.budget is {training.budget:g} and all outside of residual units takes "
                f"{made.outside:.3g} of the network's work; give at least {made.outside + LEAST:.2g}"
            )
        gates = Gates.of(made.units, training.kind, training.side, share, aim.seed)
        method = cls(network, DynConvConfig(training.budget), gates)
        method.aim, method.training_part = aim, training
        return method

    def forward(self, image: Tensor, memory: Any = None) -> Prediction:
        """Segment images [N, C, H, W] in 0..1, each by itself; a memory is not used."""
        size = check_image(image, self.network)
        if self._sees_all:
            logits, work = self.network(image), [1.0] * len(image)
        else:
            self._check_least()
            answers = [self._one(each) for each in image.split(1)]
            logits = torch.cat([answer for answer, _ in answers])
            work = [self.fixed + sum(choice.work for choice in chosen) for _, chosen in answers]
        check_logits(logits)
        step = Step("network", torch.tensor(work, dtype=torch.float64))
        return Prediction(logits, size, Trace((step,)))

    def positions(self, image: Tensor) -> list[Tensor]:
        """Return which positions of the result of every unit are computed [N, p, q], of images [N, C, H, W].

        Raises:
            ValueError: As of a call; or everything is computed, so that no gate is asked.
        """
        check_image(image, self.network)
        if self._sees_all:
            raise ValueError("budget is 1, so everything is computed; give a budget below 1, or a threshold")
        self._check_least()
        answers = [self._one(each)[1] for each in image.split(1)]
        return [
            torch.stack([torch.from_numpy(np.ascontiguousarray(choice.masks[-1])) for choice in of_unit])
            for of_unit in zip(*answers, strict=True)
        ]

    def decide(self, image: Tensor) -> None:
        """Return None: what is computed is decided inside the network."""
        check_image(image, self.network)

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of what is outside of residual branches, gates included."""
        return 1.0 if self._sees_all else self.fixed

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy under drawn masks, and how far the work is from the budget.

        Source: sections 3.2 and 3.3 of the paper.
        """
        part, progress = self.training_part, self._progress()
        if not self._masked:
            self._masked = (MaskedNetwork(self.network),)
        noisy, spent = progress < 1 - part.quiet, list[Tensor]()

        def mask(number: int, x: Tensor) -> Tensor:
            logits = self.gates.logits(number, x).float()
            found = straight_through(logits, part.temperature, noisy, self.gates.config.side)
            spent.append(self._spent(number, found, (x.shape[2], x.shape[3])))
            return found

        logits = self._masked[0].run(image, mask)
        units = [sum(layers) for layers in self.shares]
        share = (part.budget - self.fixed) / sum(units)
        term = GateBudget(min(max(share, LEAST), 1 - LEAST), part.narrow)(torch.stack(spent), units, progress)
        if self.training:
            self.done += 1
            self.gates.used.lerp_(torch.stack(spent).detach().to(self.gates.used), MOVE)
        return {
            "segmentation": cross_entropy(logits, target, self.aim.class_weight, self.aim.hardest),
            "budget": part.weight * term,
        }

    def _progress(self) -> float:
        """Return the share of the steps of the training that are done."""
        return min(1.0, float(self.done) / self.aim.steps) if self.aim.steps else 0.0

    def _spent(self, number: int, mask: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the share of a unit's work that a mask [N, p, q] of its result takes, in the mean."""
        unit, shares, parts = self.units[number], self.shares[number], list[Tensor]()
        sizes = [size]
        for layer in unit.layers[:-1]:
            sizes.append((-(-sizes[-1][0] // layer.stride), -(-sizes[-1][1] // layer.stride)))
        for layer, share, given in zip(reversed(unit.layers), reversed(shares), reversed(sizes), strict=True):
            parts.append(share * mask.mean())
            mask = seen(mask, layer, given)
        return torch.stack(parts).sum() / sum(shares)

    @property
    def _sees_all(self) -> bool:
        """Whether everything is computed, so that no gate is asked."""
        return self.budget >= 1 and self.config.threshold is None

    def _check_least(self) -> None:
        if self.budget < 1 and self.fixed > self.budget + ROUNDING:
            raise ValueError(
                f"budget is {self.budget:g} and what is outside of residual units takes {self.fixed:.3g} of "
                "the dense work, gates included; raise the budget, or give a network with less outside"
            )

    def _network(self) -> GatedNetwork:
        """Return the network with its layers joined, as its weights are now."""
        if self._made[1].joined is not self.network:
            state = _state(self.network)
            if state != self._made[0]:
                self._made = state, GatedNetwork(self.network)
        return self._made[1]

    def _one(self, image: Tensor) -> tuple[Tensor, list[Choice]]:
        """Segment one image [1, C, H, W]; return its logits, and where every unit was computed."""
        left = math.inf if self.budget >= 1 else self.budget - self.fixed
        chosen = list[Choice]()

        def decide(number: int, x: Tensor, branch: Branch) -> Choice:
            with torch.no_grad():
                logits = self.gates.logits(number, x, self.side)[0]
            scores = logits if self.config.choice == "gates" else self._drawn(number, image[0], logits)
            allowed = (left - sum(choice.work for choice in chosen)) * self._part(number)
            chosen.append(self._choose(logits, scores, branch, allowed))
            return chosen[-1]

        return self._network().run(image, decide), chosen

    def _drawn(self, number: int, image: Tensor, like: Tensor) -> Tensor:
        """Draw scores of the positions of a unit, always the same for the same image [C, H, W]."""
        return squared(noise(image, tuple(like.shape), number)[None], self.side)[0]

    def _choose(self, logits: Tensor, scores: Tensor, branch: Branch, allowed: float) -> Choice:
        """Choose the positions of a unit.

        Args:
            logits: Of its gate [p, q].
            scores: The highest of them are open [p, q].
            branch: What computes it.
            allowed: Share of the dense work that it may spend.
        """
        threshold, most, side = self.config.threshold, None, self.side
        if threshold is not None:
            wanted = (logits >= threshold).cpu().numpy()
            if math.isinf(allowed) and scores is logits:
                return open_where(wanted, branch)
            most = int(np.count_nonzero(wanted[::side, ::side]))
        return open_best(scores.float().cpu().numpy(), side, branch, allowed, most)

    def _part(self, number: int) -> float:
        """Return the part of the work left that a unit may have: as much as it wanted in training."""
        used = self.gates.used.double().clamp(LEAST, 1.0).tolist()
        wants = [use * sum(layers) for use, layers in zip(used, self.shares, strict=True)]
        return wants[number] / sum(wants[number:])


def _state(network: nn.Module) -> tuple[object, ...]:
    """Say which numbers a network has: others, or the same ones changed, say something else."""
    return tuple(
        (value.data_ptr(), value.dtype, 0 if value.is_inference() else value._version)
        for value in (*network.parameters(), *network.buffers())
    )
