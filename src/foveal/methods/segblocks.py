"""SegBlocks: busy tiles at full resolution, the rest coarser.

Adapts   space, the resolution of each tile.
Decides  once per image, before the network, by any policy; one that needs it gets a coarse pass first.
Knob     budget, the share of the dense work (in the policy).
Source   Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, sections 3.1 to 3.3.
Differs  any number of levels; deterministic plans that keep the budget; no seams (bilinear upsampling and
         global context see beyond the tile), so that everything at level 0 equals the dense network; the
         policy network may also be trained for a network that stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from foveal.methods.base import TrainableSegmenter, check_image, check_tile, mark_dense_modules
from foveal.methods.config import Aim, MethodConfig, MethodTraining, Resources, setting
from foveal.methods.prediction import Prediction, Step, Trace
from foveal.objectives.policy_gradient import PolicyLoss
from foveal.objectives.segmentation import cross_entropy, divergence, pixel_cross_entropy
from foveal.ops import halve
from foveal.policies import (
    POLICIES,
    Learned,
    Policy,
    PolicyNet,
    RandomPlans,
    View,
    as_policy,
    create_policy,
)
from foveal.policies.learned import DEEPEST, LARGEST, WIDEST
from foveal.program.settings import SCORES, SegBlocksRun
from foveal.storage.given import need
from foveal.storage.schema import MOST_LEVEL, MOST_TILE, Tile
from foveal.tiles import split

if TYPE_CHECKING:
    from foveal.geometry.plan import Plan
    from foveal.tiles import Memory


@dataclass(frozen=True)
class SegBlocksConfig(MethodConfig):
    """Settings of SegBlocks."""

    policy: str = setting(
        "entropy", "What decides which tiles run at full resolution; see `foveal policies`."
    )
    tile: int = setting(32, "Side of a tile [px].", 1, MOST_TILE)
    max_level: int = setting(
        2, "Coarsest level that may occur: 0 full resolution, 1 half, ...", 0, MOST_LEVEL
    )
    coarse_level: int = setting(2, "Level of the coarse pass, for policies that need one.", 0, MOST_LEVEL)

    @property
    def adjustable(self) -> bool:
        """Whether the policy has a budget to keep."""
        return self.policy not in POLICIES or POLICIES[self.policy].budget is None

    @property
    def is_dense(self) -> bool:
        """Whether the budget, or the policy, asks for everything."""
        everything = self.policy in POLICIES and POLICIES[self.policy].budget == 1
        return self.scale == 1 and (self.budget >= 1 or everything)

    @property
    def time_key(self) -> tuple[object, ...]:
        """Tile, levels, and whether a coarse pass comes first."""
        return self.tile, self.max_level, self.coarse_level if self._needs_pass else None

    @property
    def reduced_by(self) -> int:
        """Level of the coarse pass, which runs the network on the reduced image."""
        return self.coarse_level if self._needs_pass and not self.is_dense else 0

    @property
    def _needs_pass(self) -> bool:
        return self.policy in POLICIES and POLICIES[self.policy].needs_pass

    def program_run(self) -> SegBlocksRun | None:
        """Ask for the whole method if the policy's score goes by the coarse answer."""
        if self.policy not in SCORES:
            return None
        return SegBlocksRun(self.budget, self.policy, self.tile, self.max_level, self.coarse_level)


class SegBlocksTraining(MethodTraining):
    """Section [method] of a recipe for SegBlocks.

    Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, section 3.3; defaults of the learned policy are
    the paper's.
    """

    policy: Literal["random", "learned"] = "random"
    """random plans (training at mixed resolution), or learned: a policy network beside the network."""
    tiles: Annotated[tuple[Tile, ...], Field(min_length=1, max_length=16, strict=False)] = (32, 64)
    """Sides of a tile that random plans draw from [px]."""
    budgets: Annotated[
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=1e3)]], Field(strict=False)
    ] = (0.2, 0.8)
    """Budgets that random plans draw from; 1 and above means full resolution."""
    consistency: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of drawing the answer on tiles to the dense one."""
    block: Annotated[int, Field(ge=1, le=LARGEST)] = 64
    """Side of a block that a learned policy decides about [px]."""
    target: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Share of the blocks that a learned policy should run at full resolution."""
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """Weight of that target against the loss of the blocks."""
    policy_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.0
    """Weight of the loss of the policy."""
    gradient: Literal["reinforce", "expected"] = "reinforce"
    """reinforce, or expected for the same gradient with less noise."""
    policy_width: Annotated[int, Field(ge=1, le=WIDEST)] = 64
    """Channels of the policy network."""
    policy_depth: Annotated[int, Field(ge=2, le=DEEPEST)] = 4
    """Convolutions of the policy network."""
    frozen: bool = False
    """Whether the network stays as it is, and only the policy learns."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        stride = 2 ** (self.policy_depth + 1)
        if self.budgets[1] < self.budgets[0]:
            raise ValueError(f"budgets are {list(self.budgets)}; give 0 < low <= high")
        if self.block % stride:
            raise ValueError(f"block is {self.block}; give a multiple of {stride} px, 2^(policy_depth + 1)")
        if self.policy == "learned" and self.block % (2 * self.tile):
            raise ValueError(f"tile is {self.tile}; a block of {self.block} px holds 2x2, 4x4, ... tiles")
        if self.frozen and self.policy != "learned":
            raise ValueError("frozen is true; without a learned policy nothing would be trained")
        return self

    @property
    def freezes_network(self) -> bool:
        """Whether only the policy learns."""
        return self.frozen

    @property
    def trained_budget(self) -> float | None:
        """Work of the target without the policy's own: fine blocks in full, the others at a quarter."""
        return self.target + (1 - self.target) / 4 if self.policy == "learned" else None


class SegBlocks(TrainableSegmenter):
    """Runs an ordinary network on tiles whose levels a policy decides.

    Args:
        network: Module from images [N, 3, H, W] to logits [N, K, h, w].
        policy: Says which tiles are computed at which level: a policy, or a function from a view to a plan.
        dense_modules: Names of the submodules that must see the dense map; the network's own if absent.
        aim: What training minimises.
        consistency: Weight of the term that draws the answer on tiles to the dense answer.

    Attributes:
        policy_loss: What a learned policy minimises; another may be put in its place.
    """

    Config = SegBlocksConfig
    Training = SegBlocksTraining
    supports_masks = True
    decides_from = "the image, or the answer of a coarse pass, as the policy needs"
    class_weight: Tensor | None
    policy: Policy

    def __init__(
        self,
        network: nn.Module,
        policy: Policy | Callable[[View], Plan],
        dense_modules: tuple[str, ...] | None = None,
        aim: Aim | None = None,
        consistency: float = 0.0,
    ) -> None:
        super().__init__()
        need(network, nn.Module, "network", "a torch.nn.Module from images to logits")
        if not callable(policy):
            need(policy, (), "policy", "foveal.create_policy(name), or a function from a View to a Plan")
        aim = Aim() if aim is None else aim
        need(aim, Aim, "aim", "an Aim, or None")
        self.network = network
        self.policy = as_policy(policy)
        self.hardest, self.consistency = aim.hardest, consistency
        self.policy_loss = PolicyLoss()
        self.register_buffer("class_weight", aim.class_weight, persistent=False)
        mark_dense_modules(network, dense_modules)

    @classmethod
    def from_config(
        cls, network: nn.Module, config: SegBlocksConfig, resources: Resources | None = None
    ) -> Self:
        """Make the policy that the config names; an oracle takes labels, "learned" a policy network."""
        check_tile(network, config.tile)
        given = resources or Resources()
        oracle = None if given.labels is None else (network, given.labels)
        levels = config.tile, config.max_level, config.coarse_level
        part = oracle if config.policy == "oracle" else given.part(PolicyNet)
        return cls(network, create_policy(config.policy, config.budget, *levels, part))

    @classmethod
    def for_training(cls, network: nn.Module, training: SegBlocksTraining, aim: Aim) -> Self:
        """Train under random plans, or together with a policy network."""
        if training.policy == "random":
            for tile in training.tiles:
                check_tile(network, tile)
            plans = RandomPlans(training.tiles, training.max_level, training.budgets)
            return cls(network, plans, None, aim, training.consistency)
        check_tile(network, training.tile)
        network.requires_grad_(not training.frozen)
        torch.manual_seed(aim.seed)
        net = PolicyNet(training.block, training.policy_width, training.policy_depth)
        method = cls(network, Learned(net, training.tile), None, aim)
        method.policy_loss = PolicyLoss(
            training.target, training.gamma, training.policy_weight, training.gradient
        )
        return method

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, 3, H, W] in 0..1.

        A memory is not used: the whole image is decided anew.
        """
        earlier, plan = self.planned(image)
        logits = self.network(split(image, plan)).dense()
        return Prediction(logits, plan.size, Trace((*earlier, Step("network", plan.work, plan))))

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment where cells are wanted; a coarse pass of the policy sees the whole image."""
        earlier, plan = self.planned(image)
        plan = plan.only(wanted)
        logits = self.network(split(image, plan)).dense()
        return Prediction(logits, plan.size, Trace((*earlier, Step("network", plan.work, plan))))

    def decide(self, image: Tensor) -> Plan:
        """Return the plan of the policy, after the coarse pass if it needs one."""
        return self.planned(image)[1]

    def planned(self, image: Tensor) -> tuple[tuple[Step, ...], Plan]:
        """Return what the decision about images [N, 3, H, W] cost, and the plan."""
        view, steps = self.view(image)
        return steps, self.policy(view)

    def view(self, image: Tensor) -> tuple[View, tuple[Step, ...]]:
        """Return what the policy may look at, and what that costs.

        The network runs on the reduced image if the policy needs its answer.
        """
        size = check_image(image, self.network)
        level, budget = self.policy.coarse_level, self.policy.budget
        if budget is not None and budget >= 1:
            return View(image), ()
        if level is None:
            spent = self.policy.cost(size)
            return View(image, spent=spent), (_step("policy", image, spent),) if spent else ()
        small = halve(image, level)
        spent = small.shape[2] * small.shape[3] / (size[0] * size[1])
        return replace(View(image), logits=self.network(small), spent=spent), (_step("coarse", image, spent),)

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return what the policy's cheapest plan takes."""
        return self.policy.least_work(size)

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy of the dense answer, and of the one under a plan of the policy.

        The policy is shown the dense answer. With `consistency`, the divergence of the answer on tiles from
        the dense one is a third term: the dense network teaches itself at mixed resolution. A learned policy
        is trained beside the network, or alone if the network takes no gradient.
        """
        if isinstance(self.policy, Learned):
            return self._learn(image, target, self.policy)
        dense = self.network(image)
        plan = self.policy(View(image, logits=dense.detach()))
        mixed = self.network(split(image, plan)).dense()
        terms = {
            "dense": cross_entropy(dense, target, self.class_weight, self.hardest),
            "mixed": cross_entropy(mixed, target, self.class_weight, self.hardest),
        }
        if self.consistency:
            terms["consistency"] = self.consistency * divergence(mixed, dense.detach())
        return terms

    def _learn(self, image: Tensor, target: Tensor, policy: Learned) -> dict[str, Tensor]:
        """Run blocks that are drawn at random; the policy learns from the loss of every pixel."""
        draw = policy.draw(View(image))
        trained = any(parameter.requires_grad for parameter in self.network.parameters())
        with torch.set_grad_enabled(trained):
            logits = self.network(split(image, draw.plan)).dense()
            terms = {"segmentation": cross_entropy(logits, target, self.class_weight, self.hardest)}
        pixels = pixel_cross_entropy(logits.detach(), target, self.class_weight)
        terms["policy"] = self.policy_loss(draw.logits, draw.fine, pixels, policy.net.block)
        terms["share"] = draw.fine.float().mean()
        return terms


def _step(name: str, image: Tensor, work: float) -> Step:
    return Step(name, torch.full((len(image),), work, dtype=torch.float64))
