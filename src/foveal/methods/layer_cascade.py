"""Layer Cascade: easy places are settled by an early stage of the network, hard ones go through all of it.

Adapts   depth, tile by tile.
Decides  the confidence of the answer at every exit.
Knob     budget, the share of the dense work; or threshold, the confidence at which a tile is settled.
Source   Li, Liu, Luo, Loy and Tang, "Not All Pixels Are Equal: Difficulty-Aware Semantic Segmentation via
         Deep Layer Cascade", CVPR 2017.
Differs  tiles instead of pixels, so that every convolution stays one; of any network, cut where all of it
         goes through. What is settled goes on at a coarse level, so that what is open has neighbours and
         context to read; with `settled` vanish it does so, as in the paper. Budgets are kept per image;
         the threshold is then an upper end. A threshold of 1 settles nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from foveal.exits import Exits
from foveal.geometry.plan import SKIP, Plan, check_budget
from foveal.geometry.squares import group_squares
from foveal.methods.base import check_tile
from foveal.methods.config import Aim, MethodConfig, setting
from foveal.methods.prediction import Prediction, Step, Trace, check_logits, last
from foveal.methods.staged import EXITS, ROUNDING, StagedSegmenter, StagedTraining
from foveal.objectives.segmentation import cross_entropy
from foveal.policies import POLICIES, View
from foveal.policies.budgeted import per_cell
from foveal.storage.labels import VOID
from foveal.storage.names import find
from foveal.storage.schema import MOST_LEVEL, MOST_TILE
from foveal.tiles import TileTensor, retile, split

SETTLED = {"coarse": True, "vanish": False}
"""Whether what is settled goes on."""


@dataclass(frozen=True)
class LayerCascadeConfig(MethodConfig):
    """Settings of Layer Cascade."""

    policy: str = setting(
        "weighted_entropy", "Score of an exit's uncertainty, for budgets; see `foveal policies`."
    )
    tile: int = setting(32, "Side of a tile [px].", 1, MOST_TILE)
    settled: str = setting("coarse", "What becomes of settled places: coarse, they go on so; or vanish.")
    coarse_level: int = setting(2, "Level at which they go on.", 0, MOST_LEVEL)
    threshold: float | None = setting(
        None, "Mean confidence from which a tile is settled; as few as the budget asks for if absent.", 0, 1
    )
    pass_on: float = setting(
        0.5, "Share of what an exit lets through that a budget expects to pass the next one too.", 0, 1
    )
    exits: str = setting("", EXITS)

    def __post_init__(self) -> None:
        super().__post_init__()
        find(self.settled, SETTLED, "way of settled places")

    @property
    def settled_level(self) -> int:
        """Level at which settled places go on; SKIP where they vanish."""
        return self.coarse_level if SETTLED[self.settled] else SKIP

    @property
    def is_dense(self) -> bool:
        """Whether everything goes through the whole network: a threshold may settle some of it earlier."""
        return super().is_dense and (self.threshold is None or self.threshold >= 1)

    @property
    def time_key(self) -> tuple[object, ...]:
        """Tile, and the level of what is settled."""
        return self.tile, self.settled_level, self.exits


class LayerCascadeTraining(StagedTraining):
    """Section [method] of a recipe for Layer Cascade."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Confidence of a pixel from which later stages do not learn from it; 0.985 in the paper's evaluation."""
    budgets: Annotated[
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=1)]], Field(strict=False)
    ] = (0.5, 1.0)
    """Budgets that the cascade is trained under; not used where the network is frozen."""


class LayerCascade(StagedSegmenter):
    """Runs an ordinary network stage by stage, later ones on the tiles that are not settled.

    Args:
        network: Module from images [N, C, H, W] to logits [N, K, h, w].
        config: Budget, tiles, and what is settled.
        exits: Heads that were trained with the network; fresh ones if absent.
        dense_modules: Names of the submodules that must see the whole map; the network's own if absent.

    Raises:
        ValueError: The network cannot be cut into stages, a tile does not fit, or there is no such policy.
    """

    Config = LayerCascadeConfig
    Training = LayerCascadeTraining
    decides_from = "the answer at an exit of the network"
    supports_masks = True

    def __init__(
        self,
        network: nn.Module,
        config: LayerCascadeConfig,
        exits: Exits | None = None,
        dense_modules: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(network, exits, config.exits, dense_modules)
        able = {name: entry.score for name, entry in POLICIES.items() if entry.needs_pass and entry.score}
        self.config, self.score = config, find(config.policy, able, "policy that goes by an answer")
        self.budget, self.tile = check_budget(config.budget), check_tile(network, config.tile)
        self.training_part = LayerCascadeTraining()

    @classmethod
    def for_training(cls, network: nn.Module, training: LayerCascadeTraining, aim: Aim) -> Self:
        """Train network and heads, or heads alone."""
        if training.budgets[1] < training.budgets[0]:
            raise ValueError(f"budgets are {list(training.budgets)}; give 0 < low <= high <= 1")
        exits = cls.exits_for(network, training, aim)
        method = cls(network, LayerCascadeConfig(tile=training.tile), exits)
        method.aim, method.training_part = aim, training
        return method

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment where cells are wanted; the first stage too leaves the others out."""
        return last(self.stream(image, wanted))

    def stream(self, image: Tensor, wanted: Tensor | None = None) -> Iterator[Prediction]:
        """Yield a complete prediction at every exit that is reached; the last is that of `forward`.

        Args:
            image: Images [N, C, H, W] in 0..1.
            wanted: Cells [N, Gh, Gw], bool, of which tiles are computed; all if absent.
        """
        return self._run(image, wanted, self.budget)

    def _run(self, image: Tensor, wanted: Tensor | None, budget: float) -> Iterator[Prediction]:
        size = self._checked(image)
        plan = Plan.uniform(len(image), size, self.tile)
        plan = plan if wanted is None else plan.only(wanted)
        if self._sees_all(budget):
            yield self._whole(image, plan)
            return
        self._check_least(size, budget)
        values = self.started(split(image, plan))
        answer, steps = torch.zeros(0), list[Step]()
        depth = torch.where(plan.levels >= 0, len(self.heads), SKIP).to(torch.int8)
        for stage in range(len(self.stages)):
            values = self.after(stage, values)
            found, share = self._logits(stage, values, size), self.shares[stage]
            open_here = plan.levels == 0
            answer = torch.where(self._samples(open_here, size, found), found, answer) if stage else found
            depth[open_here] = len(self.heads) - stage
            share += self.head_shares[stage] if stage < len(self.heads) else 0.0
            steps.append(Step(f"stage {stage + 1}", share * plan.work))
            check_logits(answer)
            yield Prediction(answer, size, Trace(tuple(steps), depth.clone()))
            if stage == len(self.heads):
                return
            spent = torch.stack([step.work for step in steps]).sum(0)
            plan = self._onward(stage, View(image, logits=answer), plan, budget - spent)
            if not bool((plan.levels >= 0).any()):
                return
            read = self.reads(stage + 1)  # others move when they are read, from where they are then
            values = {n: _moved(value, plan) if n in read else value for n, value in values.items()}

    def decide(self, image: Tensor) -> Plan:
        """Return the plan of the second stage; the first one runs for it."""
        size = self._checked(image)
        plan = Plan.uniform(len(image), size, self.tile)
        if self._sees_all(self.budget):
            return plan
        self._check_least(size, self.budget)
        values = self.after(0, self.started(split(image, plan)))
        left = self.budget - (self.shares[0] + self.head_shares[0]) * plan.work
        return self._onward(0, View(image, logits=self._logits(0, values, size)), plan, left)

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the first stage and its head; of everything if nothing can be settled."""
        share = 1.0 if self._sees_all(self.budget) else self.shares[0] + self.head_shares[0]
        return share * float(Plan.uniform(1, size, self.tile).work)

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy at every exit and at the end, of what no earlier exit has settled.

        Where the network learns too, the end is reached under a random budget, through tiles.

        Source: section 3.2 of the paper: pixels that are settled do not count in later stages.
        """
        early, final = self.exit_logits(image)
        part, terms, left = self.training_part, {}, target.long()
        for number, logits in enumerate((*early, final)):
            name = f"exit_{number + 1}" if number < len(early) else "final"
            terms[name] = cross_entropy(logits, left, self.aim.class_weight, self.aim.hardest)
            sure = nn.functional.interpolate(logits.detach().float(), target.shape[-2:], mode="bilinear")
            left = torch.where(sure.softmax(1).amax(1) >= part.threshold, VOID, left)
        if not part.frozen:
            low, high = part.budgets
            least = self.least_work((image.shape[2], image.shape[3]))
            budget = min(1.0, max(least, low + (high - low) * float(torch.rand(()))))
            under = last(self._run(image, None, budget)).logits
            terms["cascade"] = cross_entropy(under, target, self.aim.class_weight, self.aim.hardest)
        return terms

    def _sees_all(self, budget: float) -> bool:
        """Whether everything goes through the whole network, so that no exit is asked."""
        return budget >= 1 and (self.config.threshold is None or self.config.threshold >= 1)

    def _whole(self, image: Tensor, plan: Plan) -> Prediction:
        everything = self.compiled is not None and bool((plan.levels >= 0).all())
        logits = self.to_the_end(image if everything else split(image, plan))
        logits = logits if everything else logits.dense()
        check_logits(logits)
        return Prediction(logits, plan.size, Trace((Step("network", plan.work, plan),)))

    def _check_least(self, size: tuple[int, int], budget: float) -> None:
        least = self.least_work(size)
        if least > budget + ROUNDING:
            raise ValueError(
                f"budget is {budget:g} and the first stage with its exit takes {least:.3g} of the dense "
                "work; raise the budget, or train exits at earlier places"
            )

    def _logits(self, stage: int, values: dict[str, Any], size: tuple[int, int]) -> Tensor:
        """Return the logits at the end of a stage, at the finest stride."""
        return self.enlarged(self.answer_at(stage, values).dense(), self.stride_at(stage), size)

    def _samples(self, cells: Tensor, size: tuple[int, int], like: Tensor) -> Tensor:
        """Spread cells [N, Gh, Gw] over the samples of logits [N, 1, h, w]."""
        side = self.tile // self.finest
        spread = cells.repeat_interleave(side, 1).repeat_interleave(side, 2)
        return spread[:, None, : like.shape[2], : like.shape[3]].to(like.device)

    def _onward(self, stage: int, view: View, plan: Plan, left: Tensor) -> Plan:
        """Say what goes on after an exit: open tiles at level 0, what is settled coarser, or nothing.

        Args:
            stage: Number of the stage that has ended.
            view: The images, and the answer so far.
            plan: What the stage has computed.
            left: Share of the dense work that is left per image [N].
        """
        dear = self.rest_after(stage + 1)
        cost = self.shares[stage + 1] + (
            self.head_shares[stage + 1] + self.config.pass_on * dear if stage + 1 < len(self.heads) else 0.0
        )
        doubt = self.score(view)
        doubt = doubt if isinstance(doubt, Tensor) else doubt[0]
        assert view.logits is not None, "an exit has answered"
        sure = view.logits.detach().float().softmax(1).amax(1)
        doubts, sures = (per_cell(x.detach(), view.size, self.tile).cpu() for x in (doubt, sure))
        within = per_cell(torch.ones_like(sure[:1]), view.size, self.tile).cpu()
        levels = [
            self._levels(doubts[n], sures[n] / within[0].clamp(min=1e-6), plan.levels[n], share, view.size)
            for n, share in enumerate((left / cost).tolist())
        ]
        return Plan(torch.stack(levels), self.tile, view.size)

    def _levels(
        self, doubt: Tensor, sure: Tensor, held: Tensor, share: float, size: tuple[int, int]
    ) -> Tensor:
        """Choose the levels [Gh, Gw] of one image within a share of the work of what follows."""
        nothing, threshold = torch.full_like(held, SKIP), self.config.threshold
        # Squares that hold places without tiles cannot be coarse: beside these, what is settled vanishes.
        coarse = SKIP if bool((held == SKIP).any()) else self.config.settled_level
        open_here = held == 0
        if threshold is not None and threshold < 1:
            open_here = open_here & (sure < threshold)
        if not bool(open_here.any()) or share <= 0:
            return nothing
        wished = _around(open_here, held, coarse)
        if float(Plan(wished[None], self.tile, size).work) <= share + self.tile**2 / (size[0] * size[1]):
            return wished
        cells = share * size[0] * size[1] / self.tile**2
        if coarse == SKIP:
            order = torch.where(open_here, doubt, -1.0).flatten().argsort(descending=True, stable=True)
            chosen = torch.zeros_like(open_here).flatten()
            chosen[order[: min(int(cells + 1e-9), int(open_here.sum()))]] = True
            return torch.where(chosen.view_as(held), 0, nothing) if bool(chosen.any()) else nothing
        if int(Plan.uniform(1, size, self.tile, coarse).tiles) > cells:
            return nothing
        scores = torch.zeros(coarse, 1, *held.shape)  # levels between gain nothing: the answer is taken at 0
        scores[0] = torch.where(open_here, doubt, 0.0)
        found = Plan.from_scores(scores, self.tile, size, min(1.0, share), coarse)
        levels = torch.maximum(found.levels[0], held)
        return levels if bool((levels == 0).any()) else nothing


def _around(open_here: Tensor, held: Tensor, coarse: int) -> Tensor:
    """Put open cells [Gh, Gw] at level 0, and squares without any at a coarse level; or leave these out."""
    if coarse == SKIP:
        return torch.where(open_here, 0, torch.full_like(held, SKIP))
    levels = torch.zeros_like(held)
    for level in range(1, coarse + 1):
        free = ~group_squares(open_here[None], 2**level).any(-1)[0]
        spread = free.repeat_interleave(2**level, 0).repeat_interleave(2**level, 1)
        levels[spread[: held.shape[0], : held.shape[1]]] = level
    return torch.maximum(levels, held)


def _moved(value: Any, plan: Plan) -> Any:
    return retile(value, plan.layout) if isinstance(value, TileTensor) else value
