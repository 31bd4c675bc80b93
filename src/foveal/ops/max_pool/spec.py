"""Take the largest sample of every window; outside the image lies the lowest number."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from foveal.geometry.layout import Halo, Layout
from foveal.ops.tiles import check_tiles


class Pooling(NamedTuple):
    """A window that slides over a map.

    Attributes:
        kernel: Its rows and columns.
        stride: Steps along both axes, equal.
        dilation: Of its rows and columns.
        halo: Samples it reaches beyond a tile.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    halo: Halo


def check(x: Tensor, layout: Layout, pooling: Pooling, kept: Tensor | None = None) -> None:
    """Refuse tiles that are not those of the layout, and windows that do not give side / stride samples.

    Raises:
        ValueError: Another number or shape of tiles or kept tiles, unequal strides, a side that is no
            multiple of the stride, or a halo that is too narrow or too wide for the windows.
    """
    side = check_tiles(x, layout, layout.computed, kept, not pooling.halo.empty)
    (stride, other), halo = pooling.stride, pooling.halo
    if stride != other or stride < 1 or side % stride:
        raise ValueError(
            f"the strides are {pooling.stride} on tiles of {side} samples a side; give one stride for both "
            "axes that divides the side"
        )
    around = halo.top + halo.bottom, halo.left + halo.right
    for border, k, d in zip(around, pooling.kernel, pooling.dilation, strict=True):
        if (side + border - d * (k - 1) - 1) // stride + 1 != side // stride or min(halo[:4]) < 0:
            raise ValueError(
                f"windows of {pooling.kernel} with dilation {pooling.dilation} and stride {stride} on tiles "
                f"of {side} samples with {halo} do not give {side // stride} samples a side; give the halo "
                "that the windows reach"
            )
