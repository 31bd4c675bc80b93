"""SegBlocks: busy tiles at full resolution, the rest coarser.

Adapts   space, the resolution of each tile.
Decides  once per image, before the network, by any policy; one that needs it gets a coarse look first.
Knob     budget, the share of the dense work (in the policy).
Source   Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, sections 3.1 to 3.3.
Differs  any number of levels; deterministic plans that keep the budget; no seams (bilinear upsampling and
         global context see beyond the tile), so that everything at level 0 equals the dense network; the
         policy network may also be trained for a network that stays as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveal.methods.base import Prediction, Request, Segmenter, Step, Trace, check_image, check_tile
from foveal.objectives.policy_gradient import PolicyLoss
from foveal.objectives.segmentation import cross_entropy, divergence, pixel_cross_entropy
from foveal.ops import halve
from foveal.policies import Learned, Policy, View, create_policy
from foveal.tiles import run_dense, split

if TYPE_CHECKING:
    from foveal.tiles import Memory


class SegBlocks(Segmenter):
    """Runs an ordinary network on tiles whose levels a policy decides.

    Args:
        network: Module from images [N, 3, H, W] to logits [N, K, h, w].
        policy: Says which tiles are computed at which level.
        dense_modules: Names of the submodules that must see the dense map; the network's `dense_modules` if
            absent.
        class_weight: Weight of every class in the loss [K].
        hardest: Share of the pixels that count in the loss.
        consistency: Weight of the term that draws the answer on tiles to the dense answer.

    Attributes:
        policy_loss: What a learned policy minimises; another may be put in its place.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        policy: Policy,
        dense_modules: tuple[str, ...] | None = None,
        class_weight: Tensor | None = None,
        hardest: float = 1.0,
        consistency: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.policy = policy
        self.hardest = hardest
        self.consistency = consistency
        self.policy_loss = PolicyLoss()
        self.register_buffer("class_weight", class_weight, persistent=False)
        for name in getattr(network, "dense_modules", ()) if dense_modules is None else dense_modules:
            run_dense(network.get_submodule(name))

    @classmethod
    def on_request(cls, network: nn.Module, request: Request) -> SegBlocks:
        """Take policy, budget, tile and levels from the request."""
        check_tile(network, request.tile)
        policy = create_policy(
            request.policy, request.budget, request.tile, request.coarsest, request.look, request.net
        )
        return cls(network, policy)

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, 3, H, W] in 0..1.

        A memory is not used: the whole image is decided anew.
        """
        check_image(image)
        view, steps = self._look(image)
        plan = self.policy(view)
        steps += (Step("network", plan.work, plan),)
        logits = self.network(split(image, plan)).dense()
        return Prediction(logits, view.size, Trace(steps))

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return what the policy's cheapest plan takes; 0 for a policy that does not say."""
        least = getattr(self.policy, "least_work", None)
        return float(least(size)) if least else 0.0

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

    def _look(self, image: Tensor) -> tuple[View, tuple[Step, ...]]:
        """Run the network on the reduced image, if the policy wants its answer; count what a policy costs."""
        level, own_work = getattr(self.policy, "look", None), getattr(self.policy, "own_work", None)
        if (getattr(self.policy, "budget", None) or 0) >= 1:
            return View(image), ()
        if level is None:
            spent = own_work((image.shape[2], image.shape[3])) if own_work else 0.0
            step = Step("policy", torch.full((len(image),), spent, dtype=torch.float64))
            return View(image, spent=spent), (step,) if spent else ()
        small = halve(image, level)
        spent = small.shape[2] * small.shape[3] / (image.shape[2] * image.shape[3])
        view = replace(View(image), logits=self.network(small), spent=spent)
        return view, (Step("look", torch.full((len(image),), spent, dtype=torch.float64)),)
