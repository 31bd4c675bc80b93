"""Routing: every image takes its own paths through a lattice of layers and scales.

Adapts   depth and scale, image by image.
Decides  a gate per cell, from the map that the cell is given.
Knob     budget, what an image may spend; threshold, the weight below which a path is closed; a fixed route.
Source   Li, Song, Chen, Li, Zhang, Wang and Sun, "Learning Dynamic Routing for Semantic Segmentation",
         CVPR 2020.
Differs  budgets are hard, per image, gates included: the paths of the smallest weights are closed until what
         is left fits, and a budget of 1 is the lattice with all paths open at their usual weights. Closed
         paths and cells compute nothing, at any batch. The budget loss counts initial cell and enlargement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from foveal.geometry.plan import check_budget
from foveal.methods.base import TrainableSegmenter, check_image
from foveal.methods.config import Aim, MethodConfig, MethodTraining, Resources, setting
from foveal.methods.prediction import Prediction, Step, Trace, check_logits
from foveal.objectives.segmentation import cross_entropy
from foveal.routes import (
    FIXED,
    Asking,
    BudgetChoice,
    Chance,
    Choice,
    FixedChoice,
    LatticeCosts,
    LatticeParts,
    Route,
    Router,
    Weights,
    expected_share,
    fixed_route,
    soft,
    usual_route,
    usual_weights,
)
from foveal.storage.names import find

if TYPE_CHECKING:
    from foveal.tiles.memory import Memory

BUDGETED = {
    "gates": "the gates of every cell",
    "random": "chance, at the usual weights",
    "usual": "the usual weights, one route for all images",
}
"""Who chooses paths within a budget."""
ROUTES = (*BUDGETED, *FIXED)
ROUNDING = 1e-9
"""Shares of work that differ by less are equal."""
WARM = 0.02
"""Share of the training over which the weight of the budget loss grows to its full size."""


@dataclass(frozen=True)
class RoutingConfig(MethodConfig):
    """Settings of routing."""

    route: str = setting("gates", f"Who chooses paths: {', '.join(ROUTES)}; the last {len(FIXED)} are fixed.")
    threshold: float | None = setting(
        None, "Weight below which a gate closes its path; if given, a budget of 1 asks gates too.", 0, 1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        find(self.route, dict.fromkeys(ROUTES), "route")

    @property
    def opens_all(self) -> bool:
        """Whether every path is open, at its usual weight, and nobody is asked."""
        return self.budget >= 1 and self.adjustable and self.threshold is None

    @property
    def is_dense(self) -> bool:
        """Whether the dense lattice runs, on the image as it came in."""
        return self.scale == 1 and self.opens_all

    @property
    def adjustable(self) -> bool:
        """Whether a budget chooses paths; a fixed route costs what it costs."""
        return self.route in BUDGETED

    @property
    def time_key(self) -> tuple[object, ...]:
        """Who chooses; gates take time that fixed routes do not."""
        return (self.route,)


class RoutingTraining(MethodTraining):
    """Section [method] of a recipe for routing."""

    budget_weight: Annotated[float, Field(ge=0, le=1000)] = 0.5
    """Weight of the budget loss: 0.8 for Dynamic-A, 0.5 for B and C, 0 for Raw."""
    budget: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the MACs of cells and transforms that is aimed at: 0.1 for Dynamic-A and B, 0.2 for C."""
    budget_from: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Share of the training after which the budget counts."""
    small_gates: bool = True
    """Whether gates look at reduced maps, as of Dynamic-A, B and C; not of Raw."""
    closed: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest share of a layer's paths, the weakest of an image, that a step closes, as budgets do later."""


class Routing(TrainableSegmenter):
    """Runs a lattice network on the paths that an image's gates open.

    Images of a batch run one after another: a gate that is nearly closed decides alike in any company.

    Args:
        network: A lattice, such as `foveal.create_model("lattice8")`, or what `foveal.fuse` made of one.
        config: Budget, and who chooses.
        router: Gates that were trained with the network; fresh ones, all open, if absent.

    Attributes:
        parts: The parts of the network.
        aim: What training minimises.

    Raises:
        ValueError: The network is no lattice, or the gates are of another one.
    """

    Config = RoutingConfig
    Training = RoutingTraining
    decides_from = "the map that a cell is given"
    decides_for = "image"
    needs = Router
    deciding = ("router.",)
    counts_interpolation = True
    step: Tensor

    def __init__(
        self, network: nn.Module, config: RoutingConfig | None = None, router: Router | None = None
    ) -> None:
        super().__init__()
        self.parts, self.config = LatticeParts(network), config or RoutingConfig()
        self.network, self.budget = network, check_budget(self.config.budget)
        like = next(network.parameters(), None)
        self.router = Router.fresh(self.parts.shape, like=like) if router is None else router
        self.router.check_fit(self.parts.shape)
        if like is not None:
            self.router.to(like)
        self.aim, self.training_part = Aim(), RoutingTraining(budget_from=0.0)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._costs: dict[tuple[int, int], LatticeCosts] = {}
        self._routes: dict[tuple[int, int], Route] = {}
        self._routes_of: Weights | None = None

    @classmethod
    def from_config(
        cls, network: nn.Module, config: RoutingConfig, resources: Resources | None = None
    ) -> Self:
        """Take the gates that were trained with the network, if there are any."""
        return cls(network, config, None if resources is None else resources.part(Router))

    @classmethod
    def for_training(cls, network: nn.Module, training: RoutingTraining, aim: Aim) -> Self:
        """Train network and gates together."""
        shape, like = LatticeParts(network).shape, next(network.parameters())
        method = cls(network, None, Router.fresh(shape, training.small_gates, aim.seed, like))
        method.aim, method.training_part = aim, training
        return method

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, C, H, W] in 0..1; a memory is not used, every image is seen anew."""
        size = check_image(image, self.network)
        if self.config.opens_all:
            step = Step("network", torch.ones(len(image), dtype=torch.float64))
            return Prediction(self.network(image), size, Trace((step,)))
        self._check_least(size)
        costs, found, works = self.costs(size), [], []
        for one in image.split(1):
            choice = self._choice(size)
            found.append(self.parts.run(one, choice, self._asking(one), costs))
            works.append(costs.of(found[-1][1], choice.asked) / costs.dense)
        logits = torch.cat([logits for logits, _ in found])
        check_logits(logits)
        step = Step(self.config.route, torch.tensor(works, dtype=torch.float64))
        return Prediction(logits, size, Trace((step,), routes=tuple(route for _, route in found)))

    def decide(self, image: Tensor) -> None:
        """Return None: whole images run."""
        check_image(image, self.network)

    def dense(self) -> nn.Module:
        """Return the lattice, all paths open at their usual weights."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of stem and decoder alone, all cells closed; or of a fixed route."""
        costs = self.costs(size)
        if self.config.opens_all:
            return 1.0
        return costs.least / costs.dense if self.config.adjustable else costs.work(self._fixed(size))

    def costs(self, size: tuple[int, int]) -> LatticeCosts:
        """Return what the parts of the lattice cost on an image of `size` [px]."""
        if size not in self._costs:
            self._costs[size] = self.parts.costs(size, self.router.small)
        return self._costs[size]

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy under the gates, and how far the expected cost is from the budget.

        With `closed`, in every step some of the weakest paths are closed.

        Source: L = CE + lambda w(t) (C_expected / C_all - mu)^2, the mean cost of the batch, w from 0 to 1
        over `WARM` of the training once `budget_from` of it is over.
        """
        check_image(image, self.network)
        aim, part = self.aim, self.training_part
        closed = part.closed * float(torch.rand(())) if part.closed else 0.0
        logits, weights = soft(self.parts, self.router, image, closed)
        weight = None if aim.class_weight is None else aim.class_weight.to(image.device)
        terms = {"segmentation": cross_entropy(logits, target, weight, aim.hardest)}
        price = part.budget_weight * self._warmth()
        if price:
            share = expected_share(self.costs((image.shape[2], image.shape[3])), weights)
            terms["budget"] = price * (share - part.budget).square()
        if self.training:
            self.step += 1
            encoder: Any = self.network.encoder
            encoder.set_weights(usual_weights(encoder.usual, weights, self.parts.shape))
        return terms

    def _choice(self, size: tuple[int, int]) -> Choice:
        """Say who chooses the paths of an image."""
        config, costs = self.config, self.costs(size)
        if config.route in ("gates", "random"):
            most, priced = (self.budget + ROUNDING) * costs.dense, config.route == "gates"
            return BudgetChoice(costs, most, self.parts.usual, priced, config.threshold or 0.0)
        return FixedChoice(self._fixed(size))

    def _fixed(self, size: tuple[int, int]) -> Route:
        """Return the route of all images of `size` [px], at the usual weights of its paths."""
        costs, usual = self.costs(size), self.parts.usual
        if usual is not self._routes_of:  # other weights were loaded
            self._routes, self._routes_of = {}, usual
        if size not in self._routes:
            if self.config.adjustable:
                self._routes[size] = usual_route(usual, costs, (self.budget + ROUNDING) * costs.dense)
            else:
                self._routes[size] = fixed_route(self.config.route, costs.shape.layers).with_weights(usual)
        return self._routes[size]

    def _asking(self, image: Tensor) -> Asking:
        """Say who weighs the paths of an image [1, C, H, W]: gates, or chance at the usual weights."""
        if self.config.route != "random":
            return self.router
        content = int((image * 255).round().long().sum())
        return Chance(self.parts.shape, self.parts.usual, content)

    def _check_least(self, size: tuple[int, int]) -> None:
        least = self.least_work(size)
        if least > self.budget + ROUNDING:
            what = "stem and decoder take" if self.config.adjustable else f"route {self.config.route} takes"
            raise ValueError(
                f"budget is {self.budget:g}, and {what} {least:.3g} of the dense lattice's work; raise the "
                "budget"
            )

    def _warmth(self) -> float:
        """Return the weight of the budget loss at this step of the training, from 0 to 1."""
        if not self.aim.steps:
            return 1.0
        done = float(self.step) / self.aim.steps - self.training_part.budget_from
        return min(1.0, max(0.0, done / WARM))
