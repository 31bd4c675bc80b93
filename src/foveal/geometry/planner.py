"""Which nodes of a forest to refine for a budget: the gain per cost at which each of them enters.

A node is a refinement: the split of a tile, or the computing of one tile over coarser content that is kept.
It can only be chosen with its parent. Maps come coarsest level first; entry (i, j) of a map has the children
(2i, 2j), (2i, 2j + 1), (2i + 1, 2j), (2i + 1, 2j + 1) of the next map, as far as that map reaches.

Source: Chou, Lookabaugh, Gray, Optimal pruning with applications to tree-structured source coding and
modeling, 1989: the generalised BFOS algorithm, whose pruned trees are the corners of the convex hull.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

Forest = Sequence[Tensor]
"""One number per node: maps [rows, columns], coarsest level first."""


def rates(gains: Forest, costs: Forest) -> list[Tensor]:
    """Compute the gain per cost at which every node enters the best choice.

    For every price p, the nodes of a rate >= p are a best choice for gain - p cost among all choices in
    which no node is without its parent, and the largest of the best. So no other choice gains more at their
    cost: such choices are the corners of the concave hull of gain over cost.

    Why: let a tree be worth V(p) = max(0, F(p)), with F(p) the gain - p cost of its root plus the V(p) of its
    children. By induction, the children's V(p) comes from all descendants of a rate >= p. In falling order of
    rate these come first, so F(p) is the largest gain - p cost that the root has with any first part of that
    order. As no cost is negative, F(p) >= 0 exactly if p <= gain / cost for one of these: the largest of
    these ratios is the rate of the root. At a higher price nothing is chosen, so no descendant keeps a rate
    above the root's. Those that lose theirs are the ones that join the root.

    Args:
        gains: Gain per node, any finite number.
        costs: Cost per node, 0 or more [tiles], [ms] or [MAC].

    Returns:
        Rate per node in double precision; never above the parent's. What costs nothing and does not lose has
        infinity; what costs nothing, loses and opens nothing has minus infinity.

    Raises:
        ValueError: Numbers are not finite, a cost is negative, or the maps do not belong together.
    """
    gains, costs = [g.double() for g in gains], [c.double() for c in costs]
    _check_costs(costs)
    _check_same("gains", gains, costs)
    if not all(bool(g.isfinite().all()) for g in gains):
        raise ValueError("gains hold NaN or infinity; give a finite gain for every node")
    found: list[Tensor] = []
    trees: Tensor | None = None
    for gain, cost in zip(reversed(gains), reversed(costs), strict=True):
        below = gain.new_empty(3, *gain.shape, 0) if trees is None else _merge(trees, gain.shape)
        rate, trees = _add_root(gain, cost, below)
        found.insert(0, rate)
    for k in range(1, len(found)):
        found[k] = torch.minimum(found[k], spread(found[k - 1], 2, found[k]))
    return found


def choose(rates: Forest, costs: Forest, budget: float, fill: bool = True) -> list[Tensor]:
    """Choose the nodes that a budget pays for, in the order of their rates.

    Among equal rates, coarser nodes come first, then reading order. The longest first part of this order
    that costs at most the budget is chosen: no node comes without its parent, and choices of growing budgets
    are nested. What costs nothing and would only lose is left out at the end. Where the budget is the cost of
    a corner of the hull that does not lose, no other choice within it gains more.

    Args:
        rates: Rate per node, from `rates`.
        costs: Cost per node.
        budget: What may be spent, in the unit of the costs; below 0, nothing is chosen.
        fill: Whether what is left after the last corner goes to the first nodes on the way to the next one,
            and to nodes that gain nothing. If not, no other choice of at most the same cost gains more.

    Returns:
        Whether a node is chosen: masks like the rates.

    Raises:
        ValueError: The budget is NaN, a cost is not finite or negative, or the maps do not belong together.
    """
    return choose_shared([rates], [costs], budget, fill)[0]


def choose_shared(
    rates: Sequence[Forest], costs: Sequence[Forest], budget: float, fill: bool = True
) -> list[list[Tensor]]:
    """Choose for several images from one budget: those that gain more get more.

    Among equal rates, coarser nodes come first, then earlier images, then reading order. Images may differ
    in size; none is sure of a part.

    Args:
        rates: Rate per node for every image, from `rates`.
        costs: Cost per node for every image.
        budget: What may be spent on all images together.
        fill: As for `choose`.

    Returns:
        Masks like the rates, for every image.

    Raises:
        ValueError: As for `choose`, or there are rates for another number of images than costs.
    """
    _check_choice(rates, costs, budget)
    depth = max((len(rate) for rate in rates), default=0)
    places = [(k, n) for k in range(depth) for n, rate in enumerate(rates) if k < len(rate)]
    chosen: list[list[Tensor]] = [[] for _ in rates]
    if not places:
        return chosen
    rate, cost = (torch.cat([x[n][k].flatten() for k, n in places]) for x in (rates, costs))
    mask = _first(rate, cost, budget, fill)
    for (k, n), part in zip(places, mask.split([rates[n][k].numel() for k, n in places]), strict=True):
        chosen[n].append(part.view(rates[n][k].shape))
    return chosen


def choose_above(rates: Forest, threshold: float) -> list[Tensor]:
    """Choose the nodes of a rate of at least `threshold`: the best choice at that price for a unit of cost.

    Raises:
        ValueError: The threshold is NaN.
    """
    if math.isnan(threshold):
        raise ValueError("threshold is NaN; give the gain that one unit of cost must bring")
    return [rate >= threshold for rate in rates]


def spread(x: Tensor, side: int, like: Tensor) -> Tensor:
    """Repeat every entry over a square of `side`, cut to the shape of `like`."""
    return x.repeat_interleave(side, 0).repeat_interleave(side, 1)[: like.shape[0], : like.shape[1]]


def _add_root(gain: Tensor, cost: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
    """Put a root on top of the trees of every place.

    Args:
        gain: Gain of the root [rows, columns].
        cost: Cost of the root [rows, columns].
        below: Gains, costs and rates of its descendants [3, rows, columns, D] in falling order of rate,
            parents before children.

    Returns:
        Rate of the root, and the tree [3, rows, columns, 1 + D] in the same order.
    """
    total = torch.cat([torch.stack([gain, cost])[..., None], below[:2]], -1).cumsum(-1)
    rate = _ratio(total[0], total[1]).amax(-1)
    below[2] = torch.minimum(below[2], rate[..., None])
    return rate, torch.cat([torch.stack([gain, cost, rate])[..., None], below], -1)


def _ratio(gain: Tensor, cost: Tensor) -> Tensor:
    """Gain per cost; infinite, with the sign of the gain, where nothing is paid."""
    free = torch.where(gain >= 0, torch.inf, -torch.inf).to(gain)
    return torch.where(cost > 0, gain / cost, free)


def _merge(trees: Tensor, shape: torch.Size) -> Tensor:
    """Join the trees [3, rows, columns, D] of up to four children per place, in falling order of rate.

    The order within a tree is kept among equal rates, so that parents stay before children: a child counted
    without its parent would promise too much. Missing children are nodes without gain and cost at the end.
    """
    rows, columns = shape
    padded = trees.new_zeros(3, 2 * rows, 2 * columns, trees.shape[-1])
    padded[2] = -torch.inf
    padded[:, : trees.shape[1], : trees.shape[2]] = trees
    squares = padded.unflatten(2, (columns, 2)).unflatten(1, (rows, 2)).transpose(2, 3).flatten(3)
    order = squares[2].sort(dim=-1, descending=True, stable=True).indices
    return squares.gather(-1, order.expand_as(squares))


def _first(rate: Tensor, cost: Tensor, budget: float, fill: bool) -> Tensor:
    """Mark the first nodes in falling order of rate that the budget pays for."""
    ordered, sequence = rate.sort(descending=True, stable=True)
    total = cost.double()[sequence].cumsum(0)
    mask = torch.zeros_like(rate, dtype=torch.bool)
    mask[sequence[: _count(ordered, total, budget, fill)]] = True
    return mask


def _count(ordered: Tensor, total: Tensor, budget: float, fill: bool) -> int:
    """Count the nodes that are chosen, given the rates in falling order and what the nodes so far cost."""
    count = int((total <= budget).sum())
    if not fill:
        count = min(count, int((ordered > 0).sum()))
    if count == 0 or ordered[count - 1] == torch.inf:
        return count
    corner = int((ordered > ordered[count - 1]).sum())
    whole = count == len(ordered) or bool(ordered[count] < ordered[count - 1])
    # Free nodes after a corner only lose: what gains for nothing has come before it.
    free = bool(total[count - 1] == (total[corner - 1] if corner else 0))
    return corner if free or not (fill or whole) else count


def _check_costs(costs: Forest) -> None:
    """Refuse costs that are no costs, and maps that are no levels of one forest."""
    if not all(bool((c.isfinite() & (c >= 0)).all()) for c in costs):
        raise ValueError("costs hold NaN, infinity or a negative number; give finite costs of 0 or more")
    shapes = [tuple(c.shape) for c in costs]
    for coarse, fine in pairwise(shapes):
        if coarse != tuple(-(-side // 2) for side in fine):
            raise ValueError(
                f"maps are {list(coarse)} and then {list(fine)}; give them coarsest first, each with half "
                "the sides of the next, rounded up"
            )
    if any(len(shape) != 2 for shape in shapes):
        raise ValueError(
            f"maps are {[list(shape) for shape in shapes]}; give [rows, columns] for every level"
        )


def _check_same(what: str, given: Forest, costs: Forest) -> None:
    """Refuse maps that are not shaped like the costs."""
    if [g.shape for g in given] != [c.shape for c in costs]:
        raise ValueError(
            f"{what} are {[list(g.shape) for g in given]} and costs {[list(c.shape) for c in costs]}; give "
            "one of each for every node"
        )


def _check_choice(rates: Sequence[Forest], costs: Sequence[Forest], budget: float) -> None:
    """Refuse what no choice can be made from."""
    if math.isnan(budget):
        raise ValueError("budget is NaN; give what may be spent, in the unit of the costs")
    if len(rates) != len(costs):
        raise ValueError(f"rates are for {len(rates)} images and costs for {len(costs)}; give both for each")
    for rate, cost in zip(rates, costs, strict=True):
        _check_costs(cost)
        _check_same("rates", rate, cost)
        if any(bool(r.isnan().any()) for r in rate):
            raise ValueError("rates hold NaN; take them from planner.rates")
