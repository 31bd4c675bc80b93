"""Model selection: a small network sees the whole image, a large one the regions that this is uncertain of.

Adapts   which of two networks answers, region by region.
Decides  the small network's own answer: its uncertainty, or any other score of a policy.
Knob     budget, the share of the large network's dense work, the small one's included; or threshold, the
         least mean uncertainty of a region that is looked at again.
Source   Huang et al., "Uncertainty based model selection for fast semantic segmentation", MVA 2019, known
         here from what others write of it; the gate: Liu et al., "SparseRefine", ECCV 2024.
Differs  regions are tiles of one batch, not crops: with a margin that is computed and not used, or beside a
         coarse view of the whole image in the same pass; the budget is kept for every image. Without a
         small network the large one sees the reduced image in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foveal.cost import relative_macs
from foveal.geometry.plan import SKIP, Plan, check_budget
from foveal.geometry.regions import Regions
from foveal.methods.base import TrainableSegmenter, check_image, check_tile, mark_dense_modules
from foveal.methods.config import Aim, MethodConfig, MethodTraining, Resources, setting
from foveal.methods.prediction import Prediction, Step, Trace, check_logits
from foveal.objectives.segmentation import cross_entropy
from foveal.ops import halve
from foveal.policies import POLICIES, View
from foveal.policies.answers import FUSIONS, WIDEST, AnswerGate, Joining, spread_cells
from foveal.policies.regions import Again, RegionPolicy
from foveal.storage.labels import VOID
from foveal.storage.names import find
from foveal.storage.schema import MOST_LEVEL, MOST_TILE
from foveal.tiles import split

if TYPE_CHECKING:
    from foveal.tiles import Memory

Run = Callable[[Tensor, Plan], Tensor]
"""Runs the large network on the tiles of a plan, from images [N, C, H, W] to logits [N, K, h, w]."""
SCORES = {name: entry.score for name, entry in POLICIES.items() if entry.score and entry.budget is None}
CHOICES: dict[str, Mapping[str, Any]] = {
    "policy": SCORES,
    "context": {"skip": False, "coarse": True},
    "blend": {"hard": False, "feather": True},
    "fusion": FUSIONS,
}
"""What settings of words may be."""
COUNTED = 256
"""Largest side of an image that MACs are counted on [px]."""


@dataclass(frozen=True)
class ModelSelectConfig(MethodConfig):
    """Settings of model selection."""

    policy: str = setting("entropy", "Score of the small network's answer; see `foveal policies`.")
    tile: int = setting(32, "Side of a tile [px].", 1, MOST_TILE)
    region_tiles: int = setting(1, "Tiles on the side of a region, which is looked at again as one.", 1, 64)
    margin_tiles: int = setting(0, "Tiles around a region that are computed for it and not used.", 0, 64)
    context: str | None = setting(
        None, "What the large network sees beyond: skip, nothing; coarse, all, as beside a --small if absent."
    )
    coarse_level: int = setting(2, "Level of that view, and of a first pass without --small.", 0, MOST_LEVEL)
    small_level: int = setting(0, "Level at which the small network sees the image.", 0, MOST_LEVEL)
    blend: str = setting("hard", "hard, or feather: answers pass into one another over the margin.")
    fusion: str = setting("replace", "Whose answer a region gets: replace, sharper, or gated (trained).")
    threshold: float | None = setting(None, "Mean uncertainty from which a region is looked at again.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in CHOICES.items():
            if getattr(self, name) is not None:
                find(getattr(self, name), known, f"{name} of model_select")
        if self.blend == "feather" and not self.margin_tiles:
            raise ValueError("blend is feather and margin_tiles 0; give a margin to pass over, or hard")

    @property
    def is_dense(self) -> bool:
        """Whether the large network runs everywhere: above 0, a threshold may leave something out."""
        return super().is_dense and (self.threshold is None or self.threshold <= 0)

    def regions(self, paired: bool) -> Regions:
        """Say how regions are computed, beside a small network of its own or without one."""
        coarse = paired if self.context is None else self.context == "coarse"
        return Regions(self.region_tiles, self.margin_tiles, self.coarse_level if coarse else SKIP)

    @property
    def joining(self) -> Joining:
        """How one answer is made of two."""
        return Joining(self.fusion, self.tile * self.margin_tiles if self.blend == "feather" else 0)

    @property
    def time_key(self) -> tuple[object, ...]:
        """Everything but what says which regions are taken."""
        return self.tile, self.regions(True), self.coarse_level, self.small_level, self.blend, self.fusion


class ModelSelectTraining(MethodTraining):
    """Section [method] of a recipe: it trains a gate between two networks, or the networks."""

    small: str = ""
    """Small network: bundled, file, run, folder or module:function; empty for the same, reduced."""
    fusion: Literal["replace", "gated"] = "gated"
    """gated trains a gate, and networks stay as they are; replace trains the networks."""
    policy: Literal[*SCORES] = "entropy"  # type: ignore[valid-type]
    """Score that regions are ranked by."""
    region_tiles: Annotated[int, Field(ge=1, le=64)] = 1
    """Tiles on the side of a region."""
    margin_tiles: Annotated[int, Field(ge=0, le=64)] = 0
    """Tiles around a region that are computed for it."""
    context: Literal["skip", "coarse"] | None = None
    """What the large network sees beyond; coarse beside a small network if absent."""
    small_level: Annotated[int, Field(ge=0, le=MOST_LEVEL)] = 0
    """Level at which the small network sees the image."""
    gate_width: Annotated[int, Field(ge=1, le=WIDEST)] = 64
    """Channels of the gate's hidden layer."""
    shares: Annotated[
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=1)]], Field(strict=False)
    ] = (0.2, 0.6)
    """Shares of the regions that are looked at again, drawn between these."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.shares[1] < self.shares[0]:
            raise ValueError(f"shares are {list(self.shares)}; give 0 < low <= high")
        return self

    @property
    def freezes_network(self) -> bool:
        """Whether only the gate learns."""
        return self.fusion == "gated"


class ModelSelect(TrainableSegmenter):
    """Runs a small network on the whole image, and a large one on tiles of the regions it is uncertain of.

    Where both may answer, logits are log probabilities.

    Args:
        network: The large network, a module from images [N, C, H, W] to logits [N, K, h, w].
        config: Budget, tiles, regions and what the answer is made of.
        small: The small network, another such module; None for the large one on the reduced image.
        gate: What weighs the two answers, for fusion "gated".

    Attributes:
        policy: Says which regions are looked at again.
        aim, shares: What training minimises, and the shares of the regions that it looks at again.

    Raises:
        ValueError: The networks have other channels or classes, tiles do not fit, or the gate is missing.
    """

    Config = ModelSelectConfig
    Training = ModelSelectTraining
    decides_from = "the answer of a small network"
    supports_masks = True

    def __init__(
        self,
        network: nn.Module,
        config: ModelSelectConfig | None = None,
        small: nn.Module | None = None,
        gate: AnswerGate | None = None,
    ) -> None:
        super().__init__()
        config = config or ModelSelectConfig()
        self.network, self.small, self.gate, self.config = network, small, gate, config
        self.budget, self.tile = check_budget(config.budget), check_tile(network, config.tile)
        score, regions = SCORES[config.policy], config.regions(small is not None)
        self.policy = RegionPolicy(score, regions, config.tile, config.budget, config.threshold)
        self.aim, self.shares = Aim(), ModelSelectTraining().shares
        self._known_shares: dict[tuple[int, int], float] = {}
        if config.fusion == "gated" and gate is None:
            raise ValueError(
                "fusion is gated and the model has no gate; train one, or give replace or sharper"
            )
        for part, name in ((small, "small network"), (gate, "gate")):
            for attribute in ("classes", "in_channels"):
                ours, theirs = (getattr(net, attribute, None) for net in (part, network))
                if None not in (ours, theirs) and ours != theirs:
                    raise ValueError(
                        f"{attribute} of the {name} is {ours}, of the large network {theirs}; give two alike"
                    )
        mark_dense_modules(network)

    @classmethod
    def from_config(
        cls, network: nn.Module, config: ModelSelectConfig, resources: Resources | None = None
    ) -> Self:
        """Take the small network and the gate from the resources."""
        given = resources or Resources()
        return cls(network, config, given.small, given.part(AnswerGate))

    @classmethod
    def for_training(cls, network: nn.Module, training: ModelSelectTraining, aim: Aim) -> Self:
        """Train a gate between two networks that stay as they are, or the networks."""
        names = {f.name for f in fields(ModelSelectConfig)} & set(type(training).model_fields)
        config, gate = cls.Config(**{name: getattr(training, name) for name in names}), None
        if training.fusion == "gated":
            torch.manual_seed(aim.seed)
            gate = AnswerGate(int(getattr(network, "classes", 0)), training.gate_width)
            for fixed in filter(None, (network, aim.small)):
                fixed.requires_grad_(False)
        method = cls(network, config, aim.small, gate)
        method.aim, method.shares = aim, training.shares
        return method

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, C, H, W] in 0..1; a memory is not used, every image is seen anew."""
        return self.answer(image, self.run)

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment where cells are wanted; a small network of its own sees the whole image."""
        return self.answer(image, self.run, wanted)

    def run(self, image: Tensor, plan: Plan) -> Tensor:
        """Run the large network on the tiles of a plan; logits [N, K, h, w] mean nothing where none is."""
        logits: Tensor = self.network(split(image, plan)).dense()
        return logits

    def answer(self, image: Tensor, run: Run, wanted: Tensor | None = None) -> Prediction:
        """Segment images [N, C, H, W], where cells are wanted [N, Gh, Gw], with what runs the large network.

        Raises:
            ValueError: The budget does not pay for the first answer, or images or logits are none.
        """
        size = check_image(image, self.network)
        if self._sees_all(size):
            plan = Plan.uniform(len(image), size, self.tile).only(wanted)
            return Prediction(run(image, plan), size, Trace((Step("network", plan.work, plan),)))
        first, held, step = self._first(image, run, wanted)
        again = self.policy(View(image, logits=first), step.work, wanted)
        logits, plan = first.log_softmax(1), again.plan
        if bool(again.cells.any()):
            logits = self._joined(first, run(image, plan), again, size)
        levels = torch.where(again.cells, 0, held).to(torch.int8)
        return Prediction(logits, size, Trace((step, Step("large", plan.work, plan)), levels))

    def planned(self, image: Tensor) -> tuple[tuple[Step, ...], Plan]:
        """Return what the decision about images [N, C, H, W] cost, and the plan of the large network."""
        size = check_image(image, self.network)
        if self._sees_all(size):
            return (), Plan.uniform(len(image), size, self.tile)
        first, _, step = self._first(image, self.run)
        return (step,), self.policy(View(image, logits=first), step.work).plan

    def decide(self, image: Tensor) -> Plan:
        """Return the plan of the large network, after the small one has run."""
        return self.planned(image)[1]

    def dense(self) -> nn.Module:
        """Return the large network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the first answer; of everything if the budget is 1."""
        if self.small is not None and not self._sees_all(size):
            return self._small_share(size)
        level = 0 if self._sees_all(size) else self.config.coarse_level
        return float(Plan.uniform(1, size, self.tile, level).work)

    def remaining_gain(self, image: Tensor, prediction: Prediction) -> Tensor:
        """Return the score per pixel where the large network did not answer [N]."""
        held = prediction.trace.levels
        if held is None or len(prediction.trace.steps) == 1:
            return super().remaining_gain(image, prediction)
        return self.policy.left(View(image, logits=prediction.logits), held != 0)

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy of the gate's answer where regions are looked at again.

        Without a gate, of the large network's answer there, and of the small one's everywhere.
        """
        size, (low, high) = check_image(image, self.network), self.shares
        with torch.set_grad_enabled(self.gate is None and torch.is_grad_enabled()):
            first, _, _ = self._first(image, self.run)
            share = low + (high - low) * float(torch.rand(()))
            again = self.policy.share(View(image, logits=first.detach()), share)
            large = self.run(image, again.plan)
        there = target.masked_fill(~spread_cells(again.cells, self.tile, size).to(target.device), VOID)
        answers = {"small": (first, target), "large": (large, there)}
        if self.gate is not None:
            answers = {"gated": (self._joined(first, large, again, size), there)}
        weight, hardest = self.aim.class_weight, self.aim.hardest
        weight = None if weight is None else weight.to(image.device)
        return {name: cross_entropy(*pair, weight, hardest) for name, pair in answers.items()}

    def _joined(self, first: Tensor, large: Tensor, again: Again, size: tuple[int, int]) -> Tensor:
        return self.config.joining(first, large, again.cells, self.tile, size, self.gate)

    def _sees_all(self, size: tuple[int, int]) -> bool:
        """Whether the large network runs everywhere at once: nothing is to be left out, or nothing saved."""
        if self.budget < 1 or (self.config.threshold or 0) <= 0:
            return self.budget >= 1
        plan = Plan.uniform(1, size, self.tile, self.config.coarse_level)
        return self.small is None and float(plan.work) >= 1

    def _first(self, image: Tensor, run: Run, wanted: Tensor | None = None) -> tuple[Tensor, Tensor, Step]:
        """Return the first answer [N, K, h, w], the large network's levels [N, Gh, Gw], and what it cost."""
        size, level = (image.shape[2], image.shape[3]), self.config.coarse_level
        level = level if self.small is None else SKIP
        plan = Plan.uniform(len(image), size, self.tile, level).only(wanted)
        if self.small is None:
            logits, step = run(image, plan), Step("coarse", plan.work, plan)
        else:
            logits = self.small(halve(image, self.config.small_level))
            step = Step("small", torch.full((len(image),), self._small_share(size), dtype=torch.float64))
        check_logits(logits)
        return logits, plan.levels, step

    def _small_share(self, size: tuple[int, int]) -> float:
        """Return the MACs of the small network on images of `size` [px] as a share of the large one's.

        Both are counted once, on `COUNTED` px a side at most: beyond, only what edges cut changes it.
        """
        sides = min(COUNTED, size[0]), min(COUNTED, size[1])
        if sides not in self._known_shares:
            small, level = self.network if self.small is None else self.small, self.config.small_level
            self._known_shares[sides] = relative_macs(small, self.network, sides, level)
        return self._known_shares[sides]
