"""Coarse to fine: look coarsely at everything, then closely where the network itself is in doubt.

Adapts   space, the resolution of each tile, pass by pass.
Decides  the network's own answer of the coarser pass; no labels, no training.
Knob     budget, the share of the dense work, all passes included; or threshold, the doubt that is looked at.
Source   this project. The coarse pass is not wasted: its features border the refined tiles, and its answer
         stays where nothing is refined.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveal.geometry import planner
from foveal.geometry.plan import SKIP, Plan, check_budget
from foveal.geometry.squares import sum_squares
from foveal.methods.base import Prediction, Request, Segmenter, Step, Trace, check_image, check_tile
from foveal.objectives.segmentation import cross_entropy, divergence
from foveal.policies import POLICIES, View
from foveal.policies.budgeted import Score, per_cell
from foveal.policies.uncertainty import weighted_entropy
from foveal.tiles import run_dense, split

if TYPE_CHECKING:
    from foveal.tiles import Memory

NOT_OPEN = -1.0
"""Gain of a tile that cannot be refined now: below that of any that can."""


@dataclass(frozen=True)
class Closer:
    """How a network looks closer; `foveal adapt` measures it for a network.

    Attributes:
        score: Says from a view with logits how much is gained where [per pixel].
        worth: What a step to level 0, 1, ... gains, as a share of the score; the last stands for all after.
        keep: Share of the coarser answer in the answer of a refined place, in logits.
        threshold: Gain per tile from which a tile is refined, within the budget; None for as many as the
            budget pays for.
        shared: Whether one budget serves all images of a batch, so that hard ones get more.

    Raises:
        ValueError: A number is none that can be used.
    """

    score: Score = weighted_entropy
    worth: tuple[float, ...] = (0.5, 1.0)
    keep: float = 0.0
    threshold: float | None = None
    shared: bool = False

    def __post_init__(self) -> None:
        if not self.worth or not all(0 <= w < math.inf for w in self.worth):
            raise ValueError(f"worth is {self.worth}; give a finite share of at least 0 for every step")
        if not 0 <= self.keep <= 1 or math.isnan(self.threshold or 0.0):
            raise ValueError(f"keep is {self.keep:g} and threshold {self.threshold}; give a share and a gain")

    def of_step(self, level: int) -> float:
        """What a step to a level gains, as a share of the score."""
        return self.worth[min(level, len(self.worth) - 1)]


@dataclass(frozen=True)
class Lesson:
    """How a network is made fit for close looks.

    Attributes:
        class_weight: Weight of every class in the loss [K].
        hardest: Share of the pixels that count.
        consistency: Weight of drawing every answer to the dense one.
        budgets: Smallest and largest budget to draw from.
        teacher: Fixed network whose dense answer is aimed at; the network's own if absent.
    """

    class_weight: Tensor | None = None
    hardest: float = 1.0
    consistency: float = 1.0
    budgets: tuple[float, float] = (0.3, 0.7)
    teacher: nn.Module | None = None


class CoarseToFine(Segmenter):
    """Runs an ordinary network on everything at a coarse level, then again on the tiles that are in doubt.

    Args:
        network: Module from images [N, 3, H, W] to logits [N, K, h, w].
        budget: Share of the dense work, all passes included.
        tile: Side of a tile [px].
        coarsest: Level of the first pass.
        closer: How to look closer.
        dense_modules: Names of the submodules that must see the dense map; the network's `dense_modules` if
            absent.

    Attributes:
        lesson: How to train; another may be put in its place.

    Raises:
        ValueError: The budget is no share of the dense work, or a tile or level none.
    """

    default_policy = "weighted_entropy"

    def __init__(
        self,
        network: nn.Module,
        budget: float = 0.4,
        tile: int = 32,
        coarsest: int = 1,
        closer: Closer | None = None,
        dense_modules: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.budget, self.tile, self.coarsest = check_budget(budget), check_tile(network, tile), coarsest
        if coarsest < 0:
            raise ValueError(f"coarsest is {coarsest}; give the level of the first look, at least 0")
        self.closer, self.lesson = closer or Closer(), Lesson()
        for name in getattr(network, "dense_modules", ()) if dense_modules is None else dense_modules:
            run_dense(network.get_submodule(name))

    @classmethod
    def on_request(cls, network: nn.Module, request: Request) -> CoarseToFine:
        """Take budget, tile and score from the request; the first look is no coarser than `coarsest`."""
        entry = POLICIES.get(request.policy)
        if entry is None or entry.score is None or not entry.looks:
            names = ", ".join(name for name, entry in POLICIES.items() if entry.looks)
            raise ValueError(
                f"coarse_to_fine goes by the network's own doubt: policy {names}; given {request.policy}"
            )
        closer = Closer(entry.score, request.worth or Closer.worth, threshold=request.threshold)
        return cls(network, request.budget, request.tile, min(request.look, request.coarsest), closer)

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, 3, H, W] in 0..1; a memory is not used, every image is seen anew."""
        return self.after(image, None)

    def after(self, image: Tensor, look: Prediction | None) -> Prediction:
        """Segment images whose first look may have been taken before, with the same tile and level."""
        for answer in self.stream(image, look):  # one after the other: earlier features are let go
            last = answer
        return last

    def stream(self, image: Tensor, look: Prediction | None = None) -> Iterator[Prediction]:
        """Yield a complete prediction after every pass, coarse first; the last is that of `forward`.

        Args:
            image: Images [N, 3, H, W] in 0..1.
            look: What the first pass gave, if it has run before.
        """
        size = check_image(image)
        if self._sees_all(size):
            yield self._pass(image, Plan.uniform(len(image), size, self.tile), None)
            return
        plan = self._first(image, size)
        answer = look or self._pass(image, plan, None, remember=self.coarsest > 0)
        yield answer
        held = plan.levels
        for level in range(self.coarsest - 1, -1, -1):
            plan = self._closer_plan(View(image, logits=answer.logits), held, level, answer.trace.work)
            if not bool(plan.tiles.any()):
                return
            answer = self._pass(image, plan, answer, remember=level > 0)
            yield answer
            held = torch.where(plan.levels >= 0, plan.levels, held)

    def rates(self, image: Tensor, look: Prediction) -> Tensor:
        """Return the gain of every tile that a first look leaves open: what a threshold is compared with."""
        held = Plan.uniform(len(image), look.size, self.tile, self.coarsest).levels
        forests = self._forests(View(image, logits=look.logits), held, self.coarsest - 1)
        return torch.cat([rate.flatten() for forest in forests for rate in planner.rates(*forest)])

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def doubt(self, image: Tensor, prediction: Prediction) -> Tensor:
        """Return the gain per pixel that was left, of all that is not at full resolution [N]."""
        held = prediction.trace.levels
        if held is None:
            return torch.zeros(len(image), dtype=torch.float64)
        gain = self.closer.score(View(image, logits=prediction.logits))
        cells = per_cell(gain if isinstance(gain, Tensor) else gain[0], prediction.size, self.tile)
        height, width = prediction.size
        return (cells * (held > 0)).sum((1, 2)).double() * self.tile**2 / (height * width)

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the first look; of everything if the budget is 1."""
        level = 0 if self._sees_all(size) else self.coarsest
        return float(Plan.uniform(1, size, self.tile, level).work)

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy of the dense answer, of the first look and of a random refinement.

        With `consistency`, both are drawn to the dense answer too: without labels (all void) that is all.
        """
        lesson, dense = self.lesson, self.network(image)
        weight = None if lesson.class_weight is None else lesson.class_weight.to(image.device)
        looks = list(self._wandering(check_image(image)).stream(image))
        answers = {"dense": dense, "look": looks[0].logits, "closer": looks[-1].logits}
        with torch.no_grad():
            goal = dense.detach() if lesson.teacher is None else lesson.teacher(image)
        terms = {}
        for name, logits in answers.items():
            terms[name] = cross_entropy(logits, target, weight, lesson.hardest)
            if lesson.consistency and (name != "dense" or lesson.teacher is not None):
                terms[f"{name}_consistency"] = lesson.consistency * divergence(_like(logits, goal), goal)
        return terms

    def _wandering(self, size: tuple[int, int]) -> CoarseToFine:
        """Draw a budget, a first look and a blurred score: what inference may choose, and more."""
        share, chance, blur = torch.rand(3).tolist()
        coarsest = min(1, self.coarsest) if chance < 0.75 else self.coarsest
        # On a small view the edge alone may make the first look dearer than the smallest budget.
        low = max(self.lesson.budgets[0], float(Plan.uniform(1, size, self.tile, coarsest).work))
        budget = min(1.0, low + max(0.0, self.lesson.budgets[1] - low) * share)

        def score(view: View) -> Tensor:
            gain = self.closer.score(view)
            gain = (gain if isinstance(gain, Tensor) else gain[0]).detach()
            noise = torch.rand(len(gain), 1, *(max(1, side // 8) for side in gain.shape[1:]))
            return gain * nn.functional.interpolate(noise.to(gain), gain.shape[1:])[:, 0].pow(blur)

        closer = Closer(score, self.closer.worth)
        return CoarseToFine(self.network, budget, self.tile, coarsest, closer, dense_modules=())

    def _sees_all(self, size: tuple[int, int]) -> bool:
        """Whether everything runs at full resolution at once: it is paid for, and no look saves any of it."""
        if self.budget < 1 or self.closer.threshold is None:
            return self.budget >= 1
        return float(Plan.uniform(1, size, self.tile, self.coarsest).work) >= 1

    def _first(self, image: Tensor, size: tuple[int, int]) -> Plan:
        plan = Plan.uniform(len(image), size, self.tile, self.coarsest)
        if float(plan.work.max()) > self.budget:
            raise ValueError(
                f"budget is {self.budget:g} and the first look at level {self.coarsest} takes "
                f"{float(plan.work.max()):.3g} of the dense work; raise the budget or look more coarsely"
            )
        return plan

    def _pass(
        self, image: Tensor, plan: Plan, before: Prediction | None, remember: bool = False
    ) -> Prediction:
        """Run the tiles of a plan, over what an earlier pass left."""
        memory = before.memory if before else None
        tiles = self.network(split(image, plan, memory, remember))
        logits, step = tiles.dense(), Step("refine" if before else "look", plan.work, plan)
        if before is not None and self.closer.keep:
            logits = logits.lerp(before.logits, self.closer.keep)
        earlier = before.trace.steps if before else ()
        return Prediction(logits, plan.size, Trace((*earlier, step)), tiles.memory(attached=True))

    def _closer_plan(self, view: View, held: Tensor, level: int, spent: Tensor) -> Plan:
        """Choose the tiles of a level that replace a part of a coarser one, with the finer ones in mind."""
        forests = self._forests(view, held, level)
        pixels, area = view.size[0] * view.size[1], self.tile**2
        left = ((self.budget - spent) * pixels / area + 1e-9).tolist()
        levels = torch.full_like(held, SKIP, device="cpu")
        for image, chosen in zip(levels, self._choose(forests, left), strict=True):
            image[planner.spread(chosen, 2**level, image)] = level
        return Plan(levels, self.tile, view.size)

    def _forests(self, view: View, held: Tensor, level: int) -> list[tuple[list[Tensor], list[Tensor]]]:
        """Make the forest of every image; on the CPU, where sums have one order."""
        gain = self.closer.score(view)
        gains = gain if isinstance(gain, tuple) else (gain,)
        maps = [per_cell(g, view.size, self.tile).cpu() for g in gains]
        return [self._forest([m[n] for m in maps], now, level) for n, now in enumerate(held.cpu())]

    def _forest(self, maps: list[Tensor], held: Tensor, level: int) -> tuple[list[Tensor], list[Tensor]]:
        """Say for every tile of a level and finer what it gains [per cell] and costs [tiles]."""
        is_open = (held == level + 1).double()
        gains, costs = [], []
        for k in range(level, -1, -1):
            cells = maps[min(k, len(maps) - 1)].double().clamp(min=0) * self.closer.of_step(k)
            room = sum_squares(is_open, 2**k) > 0
            gains.append(torch.where(room, sum_squares(cells * is_open, 2**k), NOT_OPEN))
            costs.append(room.double())
        return gains, costs

    def _choose(self, forests: list[tuple[list[Tensor], list[Tensor]]], left: list[float]) -> list[Tensor]:
        """Say which tiles of the first map of every forest are chosen, `left` tiles being paid for."""
        rates, costs = [planner.rates(*forest) for forest in forests], [forest[1] for forest in forests]
        if self.closer.shared:
            chosen = planner.choose_shared(rates, costs, sum(left))
        else:
            chosen = [planner.choose(r, c, b) for r, c, b in zip(rates, costs, left, strict=True)]
        first = [mask[0] & (cost[0] > 0) for mask, cost in zip(chosen, costs, strict=True)]
        threshold = self.closer.threshold
        if threshold is None:
            return first
        return [mask & (rate[0] >= threshold) for mask, rate in zip(first, rates, strict=True)]


def _like(logits: Tensor, other: Tensor) -> Tensor:
    """Bring logits to the size of others."""
    return nn.functional.interpolate(logits, size=other.shape[2:], mode="bilinear", align_corners=False)
