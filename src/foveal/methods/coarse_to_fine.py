"""Coarse to fine: run everything at a coarse level first, then closely where the network itself is uncertain.

Adapts   space, the resolution of each tile, pass by pass.
Decides  the network's own answer of the coarser pass; no labels, no training.
Knob     budget, the share of the dense work, all passes included; or threshold, least gain of a refined tile.
Source   this project. The coarse pass is not wasted: its features border the refined tiles, and its answer
         stays where nothing is refined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from foveal.geometry import planner
from foveal.geometry.plan import SKIP, Plan, check_budget
from foveal.methods.base import TrainableSegmenter, check_image, check_tile, mark_dense_modules
from foveal.methods.config import Aim, MethodConfig, MethodTraining, Resources, setting
from foveal.methods.prediction import Prediction, Step, Trace, check_logits, last
from foveal.objectives.segmentation import cross_entropy, divergence
from foveal.policies import POLICIES, View
from foveal.policies.budgeted import per_cell
from foveal.policies.refinement import Forest, Refinement
from foveal.program.settings import SCORES, CoarseToFineRun
from foveal.storage.schema import MOST_LEVEL, MOST_TILE
from foveal.tiles import split

if TYPE_CHECKING:
    from foveal.tiles import Memory


@dataclass(frozen=True)
class CoarseToFineConfig(MethodConfig):
    """Settings of coarse to fine."""

    policy: str = setting("weighted_entropy", "Score of the network's uncertainty; see `foveal policies`.")
    tile: int = setting(32, "Side of a tile [px].", 1, MOST_TILE)
    coarse_level: int = setting(2, "Level of the first pass: 0 full resolution, 1 half, ...", 0, MOST_LEVEL)
    schedule: str = setting("levels", "levels: one after the other; direct: from the first to full at once.")
    threshold: float | None = setting(
        None, "Gain per tile from which a tile is refined; as many as the budget pays for if absent."
    )
    isolated_gain: float = setting(
        0.3, "Share of its gain that a tile has if no tile around it is refined; 1 ignores these.", 0, 1
    )
    mask_border: str | None = setting(
        None, "What the edge of a mask borders on: edge, as at the image's (if absent); coarse, a first pass."
    )
    level_gain: tuple[float, ...] = field(default=Refinement.level_gain)
    unsaid: ClassVar = {"isolated_gain": 1.0}

    @property
    def is_dense(self) -> bool:
        """Whether everything is computed at full resolution: a threshold may leave some of it out."""
        return super().is_dense and self.threshold is None

    @property
    def time_key(self) -> tuple[object, ...]:
        """Tile, level of the first pass, and the passes after it."""
        return self.tile, self.coarse_level, self.schedule

    def program_run(self) -> CoarseToFineRun | None:
        """Ask for the whole method if a program has the score."""
        if self.policy not in SCORES:
            return None
        run = CoarseToFineRun(self.budget, self.policy, self.tile, self.coarse_level, self.level_gain)
        run = replace(run, threshold=self.threshold, mask_border=self.mask_border or "edge")
        return replace(run, direct=self.schedule == "direct", isolated_gain=self.isolated_gain)

    @property
    def refinement(self) -> Refinement:
        """How tiles are refined.

        Raises:
            ValueError: The policy is none that goes by uncertainty.
        """
        entry = POLICIES.get(self.policy)
        if entry is None or entry.score is None or not entry.needs_pass:
            names = ", ".join(name for name, entry in POLICIES.items() if entry.needs_pass)
            raise ValueError(
                f"coarse_to_fine goes by the network's own uncertainty: policy {names}; given {self.policy}"
            )
        how = Refinement(entry.score, self.level_gain, threshold=self.threshold, schedule=self.schedule)
        return replace(how, isolated_gain=self.isolated_gain, mask_border=self.mask_border or "edge")


class CoarseToFineTraining(MethodTraining):
    """Section [method] of a recipe for coarse to fine: training under random refinements."""

    budgets: Annotated[
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=1e3)]], Field(strict=False)
    ] = (0.3, 0.7)
    """Smallest and largest budget to draw from."""
    consistency: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Weight of drawing every answer to the dense one."""


class CoarseToFine(TrainableSegmenter):
    """Runs an ordinary network on everything at a coarse level, then again on the tiles it is uncertain of.

    Args:
        network: Module from images [N, 3, H, W] to logits [N, K, h, w].
        budget: Share of the dense work, all passes included.
        tile: Side of a tile [px].
        coarse_level: Level of the first pass.
        refinement: How tiles are chosen and used.
        dense_modules: Names of the submodules that must see the dense map; the network's own if absent.

    Attributes:
        aim: What training minimises; with `training` it may be replaced.
        training: Budgets and consistency of training.
        teacher: Fixed network whose dense answer training aims at; the network's own if None.

    Raises:
        ValueError: The budget is no share of the dense work, or a tile or level none.
    """

    Config = CoarseToFineConfig
    Training = CoarseToFineTraining
    decides_from = "the answer of the coarser pass"
    supports_risk = True
    is_anytime = True
    supports_masks = True

    def __init__(
        self,
        network: nn.Module,
        budget: float = 0.4,
        tile: int = 32,
        coarse_level: int = 1,
        refinement: Refinement | None = None,
        dense_modules: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.budget, self.tile = check_budget(budget), check_tile(network, tile)
        self.coarse_level = coarse_level
        if type(coarse_level) is not int or not 0 <= coarse_level <= MOST_LEVEL:
            raise ValueError(f"coarse_level is {coarse_level!r}; give a level from 0 to {MOST_LEVEL}")
        self.refinement = refinement or Refinement()
        self.aim, self.training_part = Aim(), CoarseToFineTraining()
        self.teacher: nn.Module | None = None
        mark_dense_modules(network, dense_modules)

    @classmethod
    def from_config(
        cls, network: nn.Module, config: CoarseToFineConfig, resources: Resources | None = None
    ) -> Self:
        """Take everything from the config."""
        return cls(network, config.budget, config.tile, config.coarse_level, config.refinement)

    @classmethod
    def for_training(cls, network: nn.Module, training: CoarseToFineTraining, aim: Aim) -> Self:
        """Train under random refinements."""
        if training.budgets[1] < training.budgets[0]:
            raise ValueError(f"budgets are {list(training.budgets)}; give 0 < low <= high")
        method = cls(network, tile=training.tile, coarse_level=training.max_level)
        method.aim, method.training_part = aim, training
        return method

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, 3, H, W] in 0..1; a memory is not used, every image is seen anew."""
        return last(self.stream(image))

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment where cells are wanted: the first pass too leaves the others out."""
        return last(self.stream(image, wanted))

    def stream(self, image: Tensor, wanted: Tensor | None = None) -> Iterator[Prediction]:
        """Yield a complete prediction after every pass, coarse first; the last is that of `forward`.

        Args:
            image: Images [N, 3, H, W] in 0..1.
            wanted: Cells [N, Gh, Gw], bool, of which tiles are computed; all if absent.
        """
        size = check_image(image, self.network)
        if self._sees_all(size):
            plan = Plan.uniform(len(image), size, self.tile).only(wanted)
            yield self._pass(image, plan, self._around(image, size, wanted))
            return
        plan = self._first(image, size, wanted)
        answer = self._pass(image, plan, None, remember=self.coarse_level > 0)
        yield answer
        held = plan.levels
        for level in self.refinement.steps(self.coarse_level):
            asked = held if wanted is None else torch.where(wanted, held, SKIP)
            plan = self._refined_plan(View(image, logits=answer.logits), asked, level, answer.trace.work)
            if not bool(plan.tiles.any()):
                return
            answer = self._pass(image, plan, answer, level > 0, self.refinement.logit_blend)
            yield answer
            held = torch.where(plan.levels >= 0, plan.levels, held)

    def rates(self, image: Tensor, first: Prediction) -> Tensor:
        """Return the gain of every tile that a first pass leaves open: what a threshold is compared with."""
        held = Plan.uniform(len(image), first.size, self.tile, self.coarse_level).levels
        level = self.refinement.steps(self.coarse_level).start
        forests = self._forests(View(image, logits=first.logits), held, level)
        return torch.cat([rate.flatten() for forest in forests for rate in planner.rates(*forest)])

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def remaining_gain(self, image: Tensor, prediction: Prediction) -> Tensor:
        """Return the gain per pixel that was left, of all that is not at full resolution [N]."""
        held = prediction.trace.levels
        if held is None:
            return torch.zeros(len(image), dtype=torch.float64)
        gain = self.refinement.score(View(image, logits=prediction.logits))
        cells = per_cell(gain if isinstance(gain, Tensor) else gain[0], prediction.size, self.tile)
        height, width = prediction.size
        return (cells * (held > 0)).sum((1, 2)).double() * self.tile**2 / (height * width)

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the first pass; of everything if the budget is 1."""
        return float(Plan.uniform(1, size, self.tile, 0 if self._sees_all(size) else self.coarse_level).work)

    def decide(self, image: Tensor) -> Plan:
        """Return the plan of the first pass."""
        size = check_image(image, self.network)
        whole = Plan.uniform(len(image), size, self.tile)
        return whole if self._sees_all(size) else self._first(image, size)

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy of the dense answer, of the first pass and of a random refinement.

        With `consistency`, both are drawn to the dense answer too: without labels (all void) that is all.
        """
        dense, consistency = self.network(image), self.training_part.consistency
        passes = list(self._random_twin(check_image(image, self.network)).stream(image))
        answers = {"dense": dense, "coarse": passes[0].logits, "refined": passes[-1].logits}
        with torch.no_grad():
            goal = dense.detach() if self.teacher is None else self.teacher(image)
        terms = {}
        for name, logits in answers.items():
            terms[name] = cross_entropy(logits, target, self.aim.class_weight, self.aim.hardest)
            if consistency and (name != "dense" or self.teacher is not None):
                terms[f"{name}_consistency"] = consistency * divergence(_like(logits, goal), goal)
        return terms

    def _random_twin(self, size: tuple[int, int]) -> CoarseToFine:
        """Draw a budget, a first level and a blurred score: what inference may choose, and more."""
        share, chance, blur = torch.rand(3).tolist()
        level = min(1, self.coarse_level) if chance < 0.75 else self.coarse_level
        # On a small view the edge alone may make the first pass dearer than the smallest budget.
        least, most = self.training_part.budgets
        low = max(least, float(Plan.uniform(1, size, self.tile, level).work))
        budget = min(1.0, low + max(0.0, most - low) * share)

        def score(view: View) -> Tensor:
            gain = self.refinement.score(view)
            gain = (gain if isinstance(gain, Tensor) else gain[0]).detach()
            noise = torch.rand(len(gain), 1, *(max(1, side // 8) for side in gain.shape[1:]))
            return gain * nn.functional.interpolate(noise.to(gain), gain.shape[1:])[:, 0].pow(blur)

        refinement = Refinement(score, self.refinement.level_gain)
        return CoarseToFine(self.network, budget, self.tile, level, refinement, dense_modules=())

    def _sees_all(self, size: tuple[int, int]) -> bool:
        """Whether everything runs at full resolution at once: a first pass would save nothing."""
        if self.budget < 1 or self.refinement.threshold is None:
            return self.budget >= 1
        return float(Plan.uniform(1, size, self.tile, self.coarse_level).work) >= 1

    def _first(self, image: Tensor, size: tuple[int, int], wanted: Tensor | None = None) -> Plan:
        everything = Plan.uniform(len(image), size, self.tile, self.coarse_level)
        plan = everything.only(self.refinement.reached(wanted))
        if float(plan.work.max()) > self.budget:
            raise ValueError(
                f"budget is {self.budget:g} and the first pass at level {self.coarse_level} takes "
                f"{float(plan.work.max()):.3g} of the dense work; raise the budget or the coarse level"
            )
        return plan

    def _around(self, image: Tensor, size: tuple[int, int], wanted: Tensor | None) -> Prediction | None:
        """Run the first pass around what is wanted alone, where its border is to come from there."""
        plan = Plan.uniform(len(image), size, self.tile, self.coarse_level)
        around = self.refinement.around(wanted)
        return None if around is None else self._pass(image, plan.only(around), None, remember=True)

    def _pass(
        self, image: Tensor, plan: Plan, before: Prediction | None, remember: bool = False, blend: float = 0
    ) -> Prediction:
        """Run the tiles of a plan, over what an earlier pass left."""
        memory = before.memory if before else None
        tiles = self.network(split(image, plan, memory, remember))
        logits, step = tiles.dense(), Step("refine" if before else "coarse", plan.work, plan)
        if before is not None and blend:
            logits = logits.lerp(before.logits, blend)
        check_logits(logits)
        earlier = before.trace.steps if before else ()
        return Prediction(logits, plan.size, Trace((*earlier, step)), tiles.memory(attached=True))

    def _refined_plan(self, view: View, held: Tensor, level: int, spent: Tensor) -> Plan:
        """Choose the tiles of a level that replace a part of a coarser one, with the finer ones in mind."""
        forests = self._forests(view, held, level)
        pixels, area = view.size[0] * view.size[1], self.tile**2
        left = ((self.budget - spent) * pixels / area + 1e-9).tolist()
        levels = torch.full_like(held, SKIP, device="cpu")
        for image, chosen in zip(levels, self.refinement.choose(forests, left), strict=True):
            image[planner.spread(chosen, 2**level, image)] = level
        return Plan(levels, self.tile, view.size)

    def _forests(self, view: View, held: Tensor, level: int) -> list[Forest]:
        """Make the forest of every image; on the CPU, where sums have one order."""
        gain = self.refinement.score(view)
        gains = gain if isinstance(gain, tuple) else (gain,)
        maps = [per_cell(g, view.size, self.tile).cpu() for g in gains]
        return [self.refinement.forest([m[n] for m in maps], now, level) for n, now in enumerate(held.cpu())]


def _like(logits: Tensor, other: Tensor) -> Tensor:
    """Bring logits to the size of others."""
    return nn.functional.interpolate(logits, size=other.shape[2:], mode="bilinear", align_corners=False)
