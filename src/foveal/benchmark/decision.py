"""Time of what is not the network on pixels: the policy, and the tables of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foveal.cost import alternate
from foveal.geometry.layout import Layout
from foveal.geometry.plan import Plan
from foveal.kernels.abi import index_of
from foveal.methods import SegBlocks, Segmenter
from foveal.tiles import split

ROUNDS = 15
"""Timed rounds of a decision."""


@torch.inference_mode()
def decision_ms(method: Segmenter, image: Tensor) -> float | None:
    """Time the policy, and the tables of a plan seen first [ms].

    The tables are those that the network asked for, built anew. None for a method that does not decide once
    before the network.
    """
    if not isinstance(method, SegBlocks):
        return None
    image = image.contiguous(memory_format=torch.channels_last)
    view, _ = method._look(image)
    known = method.policy(view)
    method.network(split(image, known)).dense()
    keys = list(known.layout._tables)

    def tables() -> None:
        build_tables(Plan(known.levels, known.tile, known.size).layout, keys)

    times = alternate({"policy": lambda: method.policy(view), "tables": tables}, ROUNDS)
    return times["policy"].median + times["tables"].median


def build_tables(layout: Layout, keys: Sequence[Any]) -> None:
    """Build the tables that a run needed, for a layout that has none yet."""
    for key in keys:
        if key[0] == "index":
            index_of(layout, *key[1:])
        elif key[0] == "inside":
            layout.inside(key[1])
        else:
            layout.halo_table(*key)
