"""Multiply-accumulates of many runs, counted once for all runs whose plans cost the same.

Counting goes through PyTorch's dispatcher and slows a run down. A run's MACs follow from the sizes of what
it computes, and those from three things: the shape of the images, how many tiles of every level each pass
computes, and how many tiles of every level are visible after it. The last is not implied by the others: a
coarse tile costs its enlargement in the composed map as long as any part of it is left, and how many tiles
are left depends on where the finer ones lie. A pass without a plan, of whole images through a part of the
network, costs what its share of the work says.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from foveal.cost.macs import count_macs
from foveal.geometry.plan import Plan

T = TypeVar("T")


class Pass(Protocol):
    """One pass over images: its name, its work, and the tiles that ran (None for whole images)."""

    @property
    def name(self) -> str:
        """What ran."""
        ...

    @property
    def plan(self) -> Plan | None:
        """Which tiles ran."""
        ...

    @property
    def work(self) -> Tensor:
        """Share of the dense network's work per image [N]; asked for where no tiles say it."""
        ...


def plan_key(passes: Sequence[Pass]) -> Hashable:
    """Return what the MACs of a method on images of one shape depend on.

    Args:
        passes: The passes in order, later ones over what earlier ones left.

    Returns:
        Per pass its name and, where tiles ran, the tiles per image and level that it computes and those that
        are visible after it; else the work per image.
    """
    return tuple((each.name, counts) for each, counts in zip(passes, _counts(passes), strict=True))


def _counts(passes: Sequence[Pass]) -> list[Hashable]:
    """Count the computed and the visible tiles of every pass by image and level; the work without a plan."""
    held: Tensor | None = None
    images = levels = torch.zeros(0, dtype=torch.int64)
    found: list[Hashable] = []
    for each in passes:
        if each.plan is None:
            found.append(tuple(each.work.tolist()))
            continue
        layout = each.plan.layout
        number, first = layout.owner.cpu(), len(levels)
        images = torch.cat([images, layout.image.cpu()])
        levels = torch.cat([levels, layout.level.cpu()])
        held = torch.full_like(number, -1) if held is None else held
        held = torch.where(number >= 0, number + first, held)
        computed, visible = torch.arange(first, len(levels)), held[held >= 0].unique()
        found.append(tuple(_histogram(images[chosen], levels[chosen]) for chosen in (computed, visible)))
    return found


def _histogram(images: Tensor, levels: Tensor) -> Hashable:
    """Count pairs of image and level; pairs that do not occur are left out."""
    pairs, counts = torch.stack([images, levels]).unique(dim=1, return_counts=True)
    return tuple(zip(*pairs.tolist(), counts.tolist(), strict=True))


@dataclass(frozen=True)
class Counted(Generic[T]):
    """A run and its MACs.

    Attributes:
        value: What the run returned.
        macs: Multiply-accumulates of the run [MAC].
        observed: Whether this very run was counted, which takes time.
    """

    value: T
    macs: int
    observed: bool


class MacsByPlan:
    """Runs one method on many images, and counts only where no run of the same cost was counted.

    Args:
        passes: Says which passes a run went through, from what the run returned.
    """

    def __init__(self, passes: Callable[[Any], Sequence[Pass]]) -> None:
        self._passes = passes
        self._known: dict[tuple[int, ...], dict[Hashable, int]] = {}

    def run(self, segment: Callable[[], T], shape: Sequence[int]) -> Counted[T]:
        """Run the method on images of a shape.

        The first run on a shape is counted. A later one is counted by running once more, and only if no
        counted run had the same key; then that second run is what is returned, so that the MACs belong to it
        whatever the method draws at random.

        Args:
            segment: Runs the method up to the labels.
            shape: Shape of the images [N, C, H, W].
        """
        known = self._known.setdefault(tuple(shape), {})
        if known:
            value = segment()
            macs = known.get(plan_key(self._passes(value)))
            if macs is not None:
                return Counted(value, macs, observed=False)
        runs: list[T] = []
        macs = count_macs(lambda: runs.append(segment())).total
        known[plan_key(self._passes(runs[0]))] = macs
        return Counted(runs[0], macs, observed=True)
