"""From scores to levels: which tiles to split so that a budget gains most."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from foveal.geometry.planner import choose, choose_shared, rates, spread
from foveal.geometry.squares import sum_squares


def grid(size: tuple[int, int], tile: int) -> tuple[int, int]:
    """Rows and columns of cells that cover an image."""
    return -(-size[0] // tile), -(-size[1] // tile)


def check_budget(budget: float) -> float:
    """Return the budget if it is a share of the dense work.

    Raises:
        ValueError: It is not a number above 0 and at most 1.
    """
    if not isinstance(budget, Real):
        raise ValueError(
            f"budget is {budget!r}; give a number above 0 and at most 1, a share of the dense work"
        )
    if not 0 < budget <= 1:
        raise ValueError(f"budget is {budget:g}; it must be above 0 and at most 1, a share of the dense work")
    return budget


def refine(
    scores: Tensor, tile: int, size: tuple[int, int], budget: float, max_level: int, shared: bool
) -> Tensor:
    """Choose the levels [N, Gh, Gw] within one budget for every image, or one for all of them."""
    scores = scores.cpu()  # where sums have one order, and every build has double precision
    if not bool(scores.isfinite().all()):
        raise ValueError("scores hold NaN or infinity; give finite gains per cell")
    if check_budget(budget) == 1:
        return torch.zeros(scores.shape[-3:], dtype=torch.int8)
    scores = scores.unsqueeze(0).expand(max(max_level, 1), *scores.shape) if scores.ndim == 3 else scores
    if len(scores) < max_level:
        raise ValueError(
            f"scores are for {len(scores)} levels; max_level {max_level} needs {max_level} of them"
        )
    spare = _spare(scores.shape[1] if shared else 1, tile, size, budget, max_level)
    forests = [_splits(image, max_level) for image in scores.double().unbind(1)]
    entries, costs = [rates(*forest) for forest in forests], [cost for _, cost in forests]
    if shared:
        masks = choose_shared(entries, costs, spare)
    else:
        masks = [choose(entry, cost, spare) for entry, cost in zip(entries, costs, strict=True)]
    start = torch.full(scores.shape[2:], max_level, dtype=torch.int8)
    return torch.stack([_split_where(mask, start) for mask in masks])


def _split_where(masks: list[Tensor], start: Tensor) -> Tensor:
    """Lower the levels [Gh, Gw] by one under every split, coarsest first."""
    levels = start
    for level, mask in zip(range(len(masks), 0, -1), masks, strict=True):
        levels = levels - spread(mask.to(start), 2**level, start)
    return levels


def _spare(images: int, tile: int, size: tuple[int, int], budget: float, max_level: int) -> float:
    """Count the tiles that a budget lets add to everything at `max_level`.

    Raises:
        ValueError: The budget does not even pay for that.
    """
    capacity = images * budget * size[0] * size[1] / tile**2
    cheapest = math.prod(-(-cells >> max_level) for cells in grid(size, tile))
    if images * cheapest > capacity + 1:
        share = cheapest * tile**2 / (size[0] * size[1])
        raise ValueError(
            f"budget is {budget:g} of the dense work for the tiles; the cheapest plan, everything at "
            f"level {max_level}, takes {share:.3g}; raise the budget or allow level {max_level + 1}"
        )
    return capacity + 1 - images * cheapest


def _splits(scores: Tensor, max_level: int) -> tuple[list[Tensor], list[Tensor]]:
    """Sum the scores [levels, Gh, Gw] to the gain of every split; count the tiles that it adds."""
    shape = scores.shape[1], scores.shape[2]
    gains, costs = [], []
    for level in range(max_level, 0, -1):
        gains.append(sum_squares(scores[level - 1], 2**level))
        parts = torch.ones(grid(shape, 2 ** (level - 1)), dtype=torch.float64)
        costs.append(sum_squares(parts, 2) - 1)
    return gains, costs
