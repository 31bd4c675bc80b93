"""Which tiles to refine where a refined tile is worth more beside others that are.

A tile among coarser ones borrows coarse borders, so its answer is further from the dense one. Let tile i
gain v_i (a + (1 - a) s_i), where s_i is the share of its up to eight neighbours that are refined too, and a
what is left without any. Then a set of tiles gains a sum over its tiles and over its pairs of neighbours,

    F(S) = sum over i in S of a v_i + sum over pairs in S of w_ij,   w_ij = (1 - a) (v_i / n_i + v_j / n_j),

with n_i the neighbours that tile i has in the image. The best set of a size is as hard as the densest
subgraph; taking away again and again the tile that loses least, from all of them on, is the classical
approximation. The order in which tiles go does not depend on the budget, so choices are nested.

Source: Charikar, "Greedy approximation algorithms for finding dense components in a graph", APPROX 2000.
"""

from __future__ import annotations

import heapq
from itertools import product

import torch
from torch import Tensor

AROUND = [(dy, dx) for dy, dx in product((-1, 0, 1), (-1, 0, 1)) if (dy, dx) != (0, 0)]
"""Where the neighbours of a tile are, in reading order."""


def compact_order(values: Tensor, is_open: Tensor, isolated: float) -> Tensor:
    """Order tiles so that the first n of them are compact and gain much, for every n.

    Args:
        values: What a tile gains if all its neighbours are refined [rows, columns], 0 or more.
        is_open: Whether it can be refined [rows, columns], bool; the others stay coarse.
        isolated: Share of its gain that a tile has if no neighbour is refined, 0 to 1.

    Returns:
        Numbers of the open tiles in reading order of the grid, the one that stays longest first. Of equal
        ones, the earlier stays longer.
    """
    rows, columns = values.shape
    value, inside = values.double().flatten().tolist(), is_open.flatten().tolist()
    around = [_neighbours(k, rows, columns) for k in range(rows * columns)]
    share = [(1.0 - isolated) * v / max(1, len(near)) for v, near in zip(value, around, strict=True)]
    loss = [isolated * v for v in value]
    for k, near in enumerate(around):
        for other in near if inside[k] else ():
            if inside[other]:
                loss[k] += share[k] + share[other]
    heap = [(loss[k], -k) for k in range(len(loss)) if inside[k]]
    heapq.heapify(heap)
    gone: list[int] = []
    while heap:
        lost, k = heapq.heappop(heap)
        k = -k
        if not inside[k] or lost != loss[k]:  # it has gone, or loses less by now and is in the heap again
            continue
        inside[k] = False
        gone.append(k)
        for other in around[k]:
            if inside[other]:
                loss[other] -= share[k] + share[other]
                heapq.heappush(heap, (loss[other], -other))
    return torch.tensor(gone[::-1], dtype=torch.int64)


def choose_compact(values: Tensor, is_open: Tensor, isolated: float, count: int) -> Tensor:
    """Choose that many of the open tiles: mask [rows, columns]. Choices of growing counts are nested."""
    mask = torch.zeros(values.numel(), dtype=torch.bool)
    mask[compact_order(values, is_open, isolated)[:count]] = True
    return mask.view(values.shape)


def compact_gain(values: Tensor, chosen: Tensor, isolated: float) -> float:
    """Return what a set of tiles gains, F(S) above."""
    rows, columns = values.shape
    value, inside = values.double().flatten().tolist(), chosen.flatten().tolist()
    total = 0.0
    for k in range(rows * columns):
        if inside[k]:
            near = _neighbours(k, rows, columns)
            refined = sum(inside[other] for other in near) / max(1, len(near))
            total += value[k] * (isolated + (1.0 - isolated) * refined)
    return total


def _neighbours(k: int, rows: int, columns: int) -> list[int]:
    """List the up to eight tiles around one."""
    y, x = divmod(k, columns)
    return [(y + dy) * columns + x + dx for dy, dx in AROUND if 0 <= y + dy < rows and 0 <= x + dx < columns]
