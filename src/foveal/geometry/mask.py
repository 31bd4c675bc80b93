"""Masks: which places of an image are wanted, per pixel or per cell of the tile grid."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.plan import grid


@dataclass(frozen=True)
class Mask:
    """What is wanted of a batch of images.

    Attributes:
        cells: Cells that are wanted [N, Gh, Gw], bool, of the padded images; a tile runs if one of its is.
        pixels: Pixels that get a label [N, H, W], bool.
    """

    cells: Tensor
    pixels: Tensor


def read_mask(given: Tensor, image: Tensor, padded: tuple[int, int], tile: int, share: float) -> Mask:
    """Read a mask.

    Args:
        given: Wanted pixels [N, H, W] or cells [N, Gh, Gw], bool; without N if there is one image.
        image: Images [N, C, H, W] before padding.
        padded: Height and width after it [px].
        tile: Side of a cell [px].
        share: A cell is wanted if more than this share of its pixels in the image is, from 0 to below 1.

    Raises:
        ValueError: It has another shape or type, or the share is none.
    """
    count, size = len(image), (image.shape[2], image.shape[3])
    cells = grid(size, tile)
    mask = given[None] if isinstance(given, Tensor) and given.ndim == 2 else given
    shapes = [(count, *size), (count, *cells)]
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) not in shapes:
        kind = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"mask is {kind}; give a bool tensor of the wanted pixels {list(shapes[0])}, or of the wanted "
            f"cells {list(shapes[1])} of {tile} px, or an image of {size[0]}x{size[1]} px that is not 0 "
            "where wanted"
        )
    if not isinstance(share, Real) or not 0 <= share < 1:
        raise ValueError(f"mask_share is {share!r}; give a share from 0 to below 1")
    mask = mask.cpu()
    if tuple(mask.shape) == shapes[0]:
        pixels, wanted = mask, _shares(mask, tile) > share
    else:
        wanted, pixels = mask, torch.ones(count, *size, dtype=torch.bool)
    spread = wanted.repeat_interleave(tile, 1).repeat_interleave(tile, 2)[:, : size[0], : size[1]]
    rows, columns = (a - b for a, b in zip(grid(padded, tile), cells, strict=True))
    return Mask(F.pad(wanted, (0, columns, 0, rows)), pixels & spread)


def _shares(mask: Tensor, tile: int) -> Tensor:
    """Return the share of every cell's pixels in the image that is wanted [N, Gh, Gw]."""
    down, across = (-side % tile for side in mask.shape[1:])
    both = torch.stack([mask, torch.ones_like(mask)]).float()
    wanted, inside = F.avg_pool2d(F.pad(both, (0, across, 0, down)), tile)
    return wanted / inside
