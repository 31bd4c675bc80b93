"""The two engines that experiments compare, and plans of random blocks for them to run."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from foveal.geometry.plan import Plan
from foveal.tiles import run_dense

M = TypeVar("M", bound=nn.Module)
ENGINES = "pytorch", "native"
"""Plain PyTorch with a border pass, and the fused network in C."""


def check_engine(engine: str) -> str:
    """Return the name of an engine.

    Raises:
        ValueError: There is none of that name.
    """
    if engine not in ENGINES:
        raise ValueError(f"there is no engine '{engine}'; give one of {', '.join(ENGINES)}")
    return engine


def prepare_for_tiles(model: M) -> M:
    """Let the modules that look at the whole map see it on tiles, too; return the model."""
    for name in getattr(model, "dense_modules", ()):
        run_dense(model.get_submodule(name))
    return model


def random_blocks(size: tuple[int, int], block: int, share: float, images: int = 1, seed: int = 0) -> Plan:
    """Put a share of the blocks, drawn at random, at full resolution and the others at half.

    Args:
        size: Height and width of the image [px].
        block: Side of a block [px], two tiles.
        share: Part of the blocks at full resolution, rounded to whole blocks.
        images: Number of images N; each is drawn by itself.
        seed: Of the draw.

    Raises:
        ValueError: The block cannot be halved, or the share is none.
    """
    if block < 2 or block % 2 or not 0 <= share <= 1:
        raise ValueError(
            f"block is {block} and share {share:g}; a block has an even side of at least 2, and a share is "
            "from 0 to 1"
        )
    rows, columns = (-(-side // block) for side in size)
    noise = torch.rand(images, rows * columns, generator=torch.Generator().manual_seed(seed))
    fine = noise.argsort(1).argsort(1) < round(share * rows * columns)
    levels = (~fine).to(torch.int8).view(images, rows, columns)
    return Plan.from_blocks(levels, block, block // 2, size)
