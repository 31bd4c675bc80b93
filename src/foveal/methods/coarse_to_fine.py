"""Coarse to fine: look coarsely at everything, then closely where the network itself is in doubt.

Adapts   space, the resolution of each tile, pass by pass.
Decides  the network's own answer of the coarser pass; no labels, no training.
Knob     budget, the share of the dense work, all passes included.
Source   this project. The coarse pass is not wasted: its features border the refined tiles, and its answer
         stays where nothing is refined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveal.losses.segmentation import cross_entropy
from foveal.methods.segmenter import Prediction, Request, Segmenter, Step, Trace, check_image, check_tile
from foveal.policies import POLICIES, View
from foveal.policies.doubt import entropy
from foveal.policies.scored import Score, per_cell
from foveal.tiles import SKIP, Plan, on_dense, split
from foveal.tiles.plan import check_budget, grid

if TYPE_CHECKING:
    from foveal.tiles import Memory


LEFT_FOR_FINER = 0.5
"""Share of what is left of the budget that a pass leaves to the finer ones."""


class CoarseToFine(Segmenter):
    """Runs an ordinary network on everything at a coarse level, then again on the tiles that are in doubt.

    Args:
        network: Module from images [N, 3, H, W] to logits [N, K, h, w].
        budget: Share of the dense work, all passes included.
        tile: Side of a tile [px].
        coarsest: Level of the first pass.
        score: Says from a view with logits where it pays to look closer.
        detours: Names of the submodules that must see the dense map; the network's `global_modules` if
            absent.

    Raises:
        ValueError: The budget is no share of the dense work.
    """

    def __init__(
        self,
        network: nn.Module,
        budget: float = 0.4,
        tile: int = 32,
        coarsest: int = 1,
        score: Score = entropy,
        detours: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.budget, self.tile, self.coarsest = check_budget(budget), check_tile(network, tile), coarsest
        self.score = score
        for name in getattr(network, "global_modules", ()) if detours is None else detours:
            on_dense(network.get_submodule(name))

    @classmethod
    def on_request(cls, network: nn.Module, request: Request) -> CoarseToFine:
        """Take budget, tile and the level of the first look from the request, and the score of its policy."""
        entry = POLICIES.get(request.policy)
        if entry is None or entry.score is None or not entry.looks:
            names = ", ".join(name for name, entry in POLICIES.items() if entry.looks)
            raise ValueError(
                f"coarse_to_fine goes by the network's own doubt: policy {names}; given {request.policy}"
            )
        return cls(network, request.budget, request.tile, request.look, entry.score)

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, 3, H, W] in 0..1; a memory is not used, every image is seen anew."""
        size = check_image(image)
        if self.budget >= 1:
            return self._pass(image, Plan.uniform(len(image), size, self.tile).to(image.device), None)
        plan = self._first(image, size)
        answer = self._pass(image, plan, None, remember=self.coarsest > 0)
        steps, held = answer.trace.steps, plan.levels
        for level in range(self.coarsest - 1, -1, -1):
            spent = Trace(steps).work
            plan = self._refine(View(image, logits=answer.logits), held, level, spent)
            if not bool(plan.tiles.any()):
                break
            answer = self._pass(image, plan, answer.memory, remember=level > 0)
            steps += answer.trace.steps
            held = torch.where(plan.levels >= 0, plan.levels, held)
        return Prediction(answer.logits, size, Trace(steps))

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the first look; of everything if the budget is 1."""
        level = self.coarsest if self.budget < 1 else 0
        return float(Plan.uniform(1, size, self.tile, level).work)

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy of the dense answer: the method takes a network as it is."""
        return {"segmentation": cross_entropy(self.network(image), target)}

    def _first(self, image: Tensor, size: tuple[int, int]) -> Plan:
        plan = Plan.uniform(len(image), size, self.tile, self.coarsest).to(image.device)
        if float(plan.work.max()) > self.budget:
            raise ValueError(
                f"budget is {self.budget:g} and the first look at level {self.coarsest} takes "
                f"{float(plan.work.max()):.3g} of the dense work; raise the budget or look more coarsely"
            )
        return plan

    def _pass(self, image: Tensor, plan: Plan, memory: Memory | None, remember: bool = False) -> Prediction:
        tiles = self.network(split(image, plan, memory, remember))
        step = Step("look" if memory is None else "refine", plan.work, plan)
        logits = tiles.dense()
        return Prediction(logits, plan.size, Trace((step,)), tiles.memory())

    def _refine(self, view: View, held: Tensor, level: int, spent: Tensor) -> Plan:
        """Choose the tiles of a level that replace a part of a coarser one, where the score is highest."""
        gain = self.score(view)
        score = per_cell(gain if isinstance(gain, Tensor) else gain[level], view.size, self.tile)
        open_cells = (held == level + 1).to(score)
        squares, eligible = (_pool(x * open_cells, 2**level) for x in (score, torch.ones_like(score)))
        pixels = view.size[0] * view.size[1] / self.tile**2
        share = 1.0 if level == 0 else 1 - LEFT_FOR_FINER
        counts = ((self.budget - spent) * share * pixels + 1e-9).floor().long().clamp(min=0).tolist()
        levels = torch.full_like(held, SKIP)
        for n, count in enumerate(counts):
            order = torch.where(eligible[n] > 0, squares[n], -torch.inf).flatten()
            best = order.sort(descending=True, stable=True).indices[
                : min(count, int((eligible[n] > 0).sum()))
            ]
            chosen = torch.zeros_like(order, dtype=torch.bool)
            chosen[best] = True
            mask = chosen.view(squares[n].shape).repeat_interleave(2**level, 0).repeat_interleave(2**level, 1)
            levels[n][mask[: held.shape[1], : held.shape[2]]] = level
        return Plan(levels, self.tile, view.size)


def _pool(x: Tensor, side: int) -> Tensor:
    """Sum [N, Gh, Gw] over aligned squares, the last ones cut by the edge."""
    rows, columns = grid((x.shape[1], x.shape[2]), side)
    x = nn.functional.pad(x, (0, columns * side - x.shape[2], 0, rows * side - x.shape[1]))
    return x.unflatten(2, (columns, side)).unflatten(1, (rows, side)).sum((2, 4))
