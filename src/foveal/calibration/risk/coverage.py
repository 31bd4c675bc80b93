"""How well risks are kept over many splits of measured images into calibration and test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from foveal.calibration.risk.bounds import CONFORMAL, Bound
from foveal.calibration.risk.table import EVERY, check_losses, choose_mixed, find_setting

Split = tuple[Tensor, Tensor]
"""Indices of the images that calibrate, and of those that are tested."""


@dataclass(frozen=True)
class Coverage:
    """How well a risk was kept over splits into calibration and test images.

    Attributes:
        alpha: Risk that was allowed.
        bound: What bounded it.
        promise: What it promises where images are exchangeable: "mean" or "confidence".
        splits: Number of splits.
        calibration: Calibration images of a split, on average.
        test: Test images of a split, on average.
        risk: Mean loss of the test images, over the hash that mixes images with dense.
        error: Standard error of `risk` over the splits: of these images, not of others.
        slack: What was allowed and not used, alpha - risk.
        above: Share of the splits whose mean loss is above alpha.
        work: Mean share of the dense work on the test images.
        share: Mean share of the images that were adapted.
    """

    alpha: float
    bound: str
    promise: str
    splits: int
    calibration: float
    test: float
    risk: float
    error: float
    slack: float
    above: float
    work: float
    share: float


def coverage(
    losses: Tensor,
    works: Tensor,
    alpha: float,
    splits: Sequence[Split],
    mixed: int | Sequence[int] | None = None,
    bound: Bound = CONFORMAL,
) -> Coverage:
    """Calibrate and test on every split.

    Args:
        losses: Losses [n, L].
        works: Shares of the dense work [n, L].
        alpha: The risk that is allowed.
        splits: At least 2.
        mixed: Setting that dense is mixed with, in all splits or in each; None for whole settings only.
        bound: Bound on the expected loss.

    Raises:
        ValueError: Losses or splits are none, or a split has too few images for alpha.
    """
    check_losses(losses)
    if len(splits) < 2:
        raise ValueError(f"splits is {len(splits)}; give at least 2, so that the risk has a standard error")
    losses, works = losses.double(), works.double()
    tried = []
    each = mixed if isinstance(mixed, Sequence) else [mixed] * len(splits)
    for (chosen, rest), one in zip(splits, each, strict=True):
        index, share, _ = find_setting(losses[chosen], works[chosen].mean(0), alpha, one, bound)
        risk = share * float(losses[rest, index].mean())
        work = 1 - share * (1 - float(works[rest, index].mean()))
        tried.append((len(chosen), len(rest), risk, work, share if index else 0.0, float(risk > alpha)))
    found = torch.tensor(tried, dtype=torch.float64)
    calibration, test, risk, work, share, above = found.mean(0).tolist()
    error = float(found[:, 2].std()) / math.sqrt(len(splits))
    head = alpha, bound.name, bound.promise, len(splits), calibration, test
    return Coverage(*head, risk, error, alpha - risk, above, work, share)


def random_splits(images: int, splits: int = 100, share: float = 0.5, seed: int = 0) -> list[Split]:
    """Draw splits image by image; a share of the images, at least one and not all, calibrates."""
    draw = Generator().manual_seed(seed)
    count = min(max(1, round(share * images)), images - 1)
    orders = (torch.randperm(images, generator=draw) for _ in range(splits))
    return [(order[:count], order[count:]) for order in orders]


def group_splits(groups: Sequence[str], splits: int = 100, seed: int = 0) -> list[Split]:
    """Draw splits group by group: a random half calibrates, then the other half does.

    Indices are in random order, so that a part of those that calibrate can be set apart.

    Args:
        groups: The group of every image, such as its drive.
        splits: Number of splits.
        seed: Of the draws.

    Raises:
        ValueError: There is only one group.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError(f"all images are of one group, {names[0]}; give images of at least two")
    draw = Generator().manual_seed(seed)
    found = []
    for half in _halves(names, splits, draw):
        inside = torch.tensor([group in half for group in groups])
        chosen, rest = inside.nonzero()[:, 0], (~inside).nonzero()[:, 0]
        found.append((chosen[torch.randperm(len(chosen), generator=draw)], rest))
    return found


def set_apart(splits: Sequence[Split], losses: Tensor, works: Tensor) -> tuple[list[Split], list[int]]:
    """Let the first quarter of those that calibrate choose what is mixed, as `foveal adapt` does.

    Returns:
        The splits with the others only, and the setting that is mixed in each.
    """
    found, mixed = [], []
    for chosen, rest in splits:
        count = -(-len(chosen) // EVERY)
        found.append((chosen[count:], rest))
        mixed.append(choose_mixed(losses[chosen[:count]], works[chosen[:count]], len(chosen) - count))
    return found, mixed


def _halves(names: Sequence[str], count: int, draw: Generator) -> Iterator[set[str]]:
    """Yield a random half of the names, then what it left, and so on."""
    for number in range(count):
        if number % 2 == 0:
            order = [names[k] for k in torch.randperm(len(names), generator=draw).tolist()]
            middle = len(names) // 2
        yield set(order[:middle] if number % 2 == 0 else order[middle:])
