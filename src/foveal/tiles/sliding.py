"""A window that slides over a map: how far it reaches beyond a tile, and when sliding it has a meaning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foveal.geometry.layout import Fill, Halo, Layout
from foveal.ops import fetch_halo
from foveal.tiles.rules import check_axes, need, need_geometry, pad_to
from foveal.tiles.tensor import EXACT, TileTensor


class Window:
    """A window that slides over a map: how far it reaches beyond a tile."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> None:
        self.kernel, self.stride, self.dilation = kernel, stride, dilation
        self.reach = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))

    def halo(self, padding: tuple[int, int], fill: Fill) -> Halo:
        """Samples needed beyond a tile when the first window starts `padding` before it."""
        top, left = padding
        bottom, right = (
            max(0, d * (k - 1) - p - (s - 1))
            for k, s, d, p in zip(self.kernel, self.stride, self.dilation, padding, strict=True)
        )
        return Halo(left, right, top, bottom, fill)

    def same_size(self, x: TileTensor, padding: tuple[int, int], ceil_mode: bool) -> bool:
        """Whether the dense result has ceil(side / stride) samples, with explicit padding included.

        An explicit padding may have been computed for the sides that the map has at its finest level.
        """
        finest = min(x.layout.finest)

        def fits(level: int) -> bool:
            return self._fits(x, x.layout.extent(x.side, level), padding, ceil_mode)

        if any(x.pad):
            return fits(0) or fits(finest)
        return fits(0) and (not EXACT.get() or fits(finest))

    def fits_multiples(self, x: TileTensor, padding: tuple[int, int], ceil_mode: bool) -> bool:
        """Whether the dense result would have them if the sides were multiples of the stride."""
        sides = [-(-n // s) * s for n, s in zip(x.layout.extent(x.side, 0), self.stride, strict=True)]
        return self._fits(x, sides, padding, ceil_mode)

    def _fits(self, x: TileTensor, sides: Sequence[int], padding: tuple[int, int], ceil_mode: bool) -> bool:
        ends = (x.pad[3], x.pad[1]) if any(x.pad) else padding
        starts = (x.pad[2], x.pad[0]) if any(x.pad) else padding
        for n, k, s, d, p, q in zip(
            sides, self.kernel, self.stride, self.dilation, starts, ends, strict=True
        ):
            free = n + p + q - d * (k - 1) - 1
            if (-(-free // s) if ceil_mode else free // s) + 1 != -(-n // s):
                return False
        return True

    def counts(self, x: TileTensor, padding: tuple[int, int]) -> Tensor:
        """Count the samples of every window [computed, side, side], padding included, float64."""
        pads = ((x.pad[2], x.pad[3]), (x.pad[0], x.pad[1])) if any(x.pad) else tuple((p, p) for p in padding)
        key = "counts", x.side, self.kernel, self.stride, pads
        return x.layout.table(key, lambda layout: self._count(layout, x.side, pads))

    def _count(self, layout: Layout, old: int, pads: Sequence[tuple[int, int]]) -> Tensor:
        side, level = old // self.stride[0], layout.level[: layout.computed, None]
        counts = []
        for axis, first in enumerate((layout.row, layout.column)):
            place = ((first[: layout.computed, None] * side) >> level) + torch.arange(side)
            sides = torch.tensor(
                [layout.extent(old, k)[axis] for k in range(max(layout.levels, default=0) + 1)]
            )[level]
            begin = place * self.stride[axis] - pads[axis][0]
            end = torch.minimum(begin + self.kernel[axis], sides + pads[axis][1])
            counts.append((end - begin).clamp(min=1).double())
        return counts[0][:, :, None] * counts[1][:, None, :]

    def borders(
        self, x: TileTensor, padding: tuple[int, int], fill: Fill, name: str, ceil_mode: bool = False
    ) -> Tensor:
        """Return the tiles with all that their windows reach."""
        halo = self.checked_halo(x, padding, fill, name, ceil_mode)
        return x.tiles if self.kernel == (1, 1) else fetch(x, halo, name)

    def check_stride(self, x: TileTensor, name: str) -> None:
        """Refuse steps that tiles are no multiple of."""
        if all(x.side % s == 0 for s in self.stride) and self.stride[0] == self.stride[1]:
            return  # the sentence below takes longer to write than a small convolution
        need(self.stride[0] == self.stride[1], f"{name} with stride {self.stride}")
        need_geometry(
            False,
            f"{name} with stride {self.stride} on tiles of {x.side} samples (tile {x.layout.tile} at stride "
            f"{x.stride})",
            "choose a tile that is a multiple of the network's stride",
        )

    def checked_halo(
        self, x: TileTensor, padding: tuple[int, int], fill: Fill, name: str, ceil_mode: bool = False
    ) -> Halo:
        """Return what the windows reach beyond a tile, if sliding them has a meaning there."""
        check_axes(x)
        need(not (any(x.pad) and any(padding)), f"{name} with padding after an explicit padding")
        need(not (any(x.pad) and fill == "lowest"), f"{name} after an explicit padding")
        if not self.same_size(x, padding, ceil_mode):
            what = (
                f"{name} with kernel {self.kernel}, stride {self.stride}, padding {padding}, dilation "
                f"{self.dilation} on a map of {tuple(x.shape[2:])}: the result is not the side divided by "
                "the stride, rounded up"
            )
            step = max(self.stride)
            step <<= min(x.layout.finest)
            need_geometry(not self.fits_multiples(x, padding, ceil_mode), what, pad_to(x, step))
            need(False, what)
        self.check_stride(x, name)
        start = (x.pad[2], x.pad[0]) if any(x.pad) else padding
        need(
            all(p <= r for p, r in zip(start, self.reach, strict=True)),
            f"{name} with a padding that is wider than its kernel reaches",
        )
        return self.halo(start, fill)


def kept_for(x: TileTensor, halo: Halo, name: str) -> Tensor | None:
    """Record what an operation reads, and return what was kept for it."""
    return x.tape.exchange(name, x.tiles) if x.tape and not halo.empty else None


def fetch(x: TileTensor, halo: Halo, name: str) -> Tensor:
    """Borrow a halo, from remembered tiles too."""
    if halo.empty and x.layout.inside(x.side) is None:
        return x.tiles
    return fetch_halo(x.tiles, x.layout, halo, kept_for(x, halo, name))
