"""How C kernels see a map: rows of channels, and an index of the row that every place reads.

The index of a scale is [computed, side + 2 border, side + 2 border], int32: the row of a sample among the
tiles computed now, then among those kept, then among averages of finer samples; -1 outside the image. All
layers of a scale share it, whatever their windows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

from foveal.geometry.layout import Fill, Layout
from foveal.kernels.build import available, loaded, pointer, why_not

Address = ctypes.c_void_p

_PLAIN: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Leave the C kernels alone and let PyTorch serve, to compare the two in one process."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


class Rows(ctypes.Structure):
    """A map as rows of channels, `Source` in rows.h."""

    _fields_ = [
        *((name, Address) for name in ("own", "kept", "means", "outside", "index")),
        *((name, ctypes.c_int64) for name in ("own_rows", "kept_rows", "tiles")),
        *((name, ctypes.c_int32) for name in ("height", "width", "channels", "top", "left")),
    ]


class _Grid(ctypes.Structure):
    _fields_ = [
        *((name, Address) for name in ("image", "level", "row", "column", "owner")),
        *((name, ctypes.c_int64) for name in ("tiles", "computed")),
        *((name, ctypes.c_int32) for name in ("height", "width", "tile", "rows", "columns", "plain_level")),
        *((name, ctypes.c_int64) for name in ("images", "first")),
    ]


class _Means(ctypes.Structure):
    _fields_ = [
        *((name, Address) for name in ("start", "source", "share")),
        *((name, ctypes.c_int64) for name in ("means", "parts", "most_means", "most_parts")),
    ]


class Window(ctypes.Structure):
    """A window that slides over a map, as the kernels in windows.c read it."""

    _fields_ = [
        ("in", Rows),
        *((name, Address) for name in ("weight", "bias")),
        *((name, ctypes.c_float) for name in ("low", "high")),
        ("out", Address),
        *((name, ctypes.c_int32) for name in ("rows", "columns", "stride", "dilation")),
        *((name, ctypes.c_int32) for name in ("out_height", "out_width")),
    ]


class Places(ctypes.Structure):
    """Where tiles lie, as the kernels in tiles.c read it."""

    _fields_ = [
        *((name, Address) for name in ("image", "level", "row", "column")),
        ("tiles", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("height", "width", "channels", "side", "base")),
    ]


MOST_TAPS = 121
"""Samples in a window that the kernels in windows.c have room for."""


class Index(NamedTuple):
    """Where every place of the bordered tiles comes from.

    Attributes:
        rows: Row per place [computed, side + 2 border, side + 2 border], int32; -1 outside the image.
        start: First part of every average [M + 1], int32.
        source: Row of every part, int32.
        share: Share of every part in its average.
        border: Width of the border, the same on all sides.
    """

    rows: Tensor
    start: Tensor
    source: Tensor
    share: Tensor
    border: int

    @property
    def means(self) -> int:
        """Number of averages M."""
        return len(self.start) - 1


def index_of(layout: Layout, side: int, border: int, edge: bool = False) -> Index:
    """Build the index of a scale, or take it from the layout.

    Args:
        layout: Place of every tile.
        side: Samples on a tile's side.
        border: Samples wanted beyond every side.
        edge: Whether the image's edge is repeated outside it; else such places are -1.
    """
    return layout.table(("index", side, border, edge), lambda layout: _build(layout, side, border, edge))


def _build(layout: Layout, side: int, border: int, edge: bool) -> Index:
    full = side + 2 * border
    rows = torch.empty(layout.computed, full, full, dtype=torch.int32)
    tensors = [x.contiguous() for x in (layout.image, layout.level, layout.row, layout.column, layout.owner)]
    grid = _Grid(
        *map(pointer, tensors),
        len(layout),
        layout.computed,
        *layout.size,
        layout.tile,
        *layout.owner.shape[1:],
    )
    room = [4 * full * layout.computed * (len(layout.levels) > 1) + 2, 0]
    room[1] = 4 * room[0]
    while True:
        start, source = (torch.empty(n, dtype=torch.int32) for n in room)
        share = torch.empty(room[1])
        means = _Means(pointer(start), pointer(source), pointer(share), 0, 0, *room)
        loaded().foveal_index(
            ctypes.byref(grid), side, border, int(edge), Address(pointer(rows)), ctypes.byref(means)
        )
        if means.means < room[0] and means.parts <= room[1]:
            return Index(rows, start[: means.means + 1], source[: means.parts], share[: means.parts], border)
        room = [means.means + 2, means.parts]


def as_rows(x: Tensor) -> Tensor:
    """View a map [B, C, H, W] as contiguous rows [B, H, W, C], copied only if it lies otherwise."""
    return x.permute(0, 2, 3, 1).contiguous()


def usable(x: Tensor, layout: Layout | None = None) -> bool:
    """Whether C kernels can read a map: single precision on a CPU, no gradients are wanted, usual borders."""
    return (
        not _PLAIN.get()
        and (layout is None or layout.borders == "average")
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not (torch.is_grad_enabled() and x.requires_grad)
        and available()
    )


def requirements() -> str:
    """Say what `usable` asks for, and what of it is missing here, to go on in an error."""
    missing = f", which are not available here ({why_not()})" if not available() else ""
    return (
        f": it needs single precision on a CPU, no gradients, the usual borders, and the C kernels{missing}"
    )


class Source:
    """A map as C kernels read it.

    Args:
        x: [B, C, H, W], float32: tiles, or images if there is no layout.
        layout: Where the tiles lie; None for a dense map.
        border: Samples that windows may reach beyond a tile.
        fill: What lies outside the image, or the row [C] that does.
        kept: Tiles from an earlier pass.
        change: Scale, shift, low and high of the samples before they are averaged.
    """

    def __init__(
        self,
        x: Tensor,
        layout: Layout | None,
        border: int = 0,
        fill: Fill | Tensor = "zero",
        kept: Tensor | None = None,
        change: tuple[Tensor, Tensor, float, float] | None = None,
    ) -> None:
        self.own = as_rows(x)
        tiles, height, width, channels = self.own.shape
        self.kept = None if kept is None else as_rows(kept)
        row = fill if isinstance(fill, Tensor) else None
        self.outside = outside_row(channels, fill) if not isinstance(fill, Tensor) else fill
        self.unknown = outside_row(channels, "zero") if row is None else row
        self.index, self.means, self.border = None, None, 0
        self.tiles, self.height, self.width, self.channels = tiles, height, width, channels
        if layout is not None:
            self.index, self.border = index_of(layout, height, border, row is None and fill == "edge"), border
            self.height, self.width = self.index.rows.shape[1:]
            self.means = self._average(self.index, change)

    def struct(self, top: int = 0, left: int = 0) -> Rows:
        """Describe the map to a kernel whose first window starts `top` and `left` before the tile."""
        rows = Rows()
        self.write(rows, top, left)
        return rows

    def write(self, rows: Rows, top: int = 0, left: int = 0) -> None:
        """As `struct`, into a structure that is there."""
        own, kept = self.own, self.kept
        rows.own = own.data_ptr()
        rows.own_rows = own.shape[0] * own.shape[1] * own.shape[2]
        if kept is not None:
            rows.kept = kept.data_ptr()
            rows.kept_rows = kept.shape[0] * kept.shape[1] * kept.shape[2]
        if self.means is not None:
            rows.means = self.means.data_ptr()
        if self.index is not None:
            rows.index = self.index.rows.data_ptr()
        rows.outside = self.outside.data_ptr()
        rows.tiles, rows.height, rows.width, rows.channels = (
            self.tiles,
            self.height,
            self.width,
            self.channels,
        )
        rows.top, rows.left = self.border - top, self.border - left

    def _average(self, index: Index, change: tuple[Tensor, Tensor, float, float] | None) -> Tensor | None:
        """Average what finer tiles hold [M, C]."""
        if not index.means:
            return None
        out = torch.empty(index.means, self.channels)
        scale, shift, low, high = (None, None, 0.0, 0.0) if change is None else change
        loaded().foveal_means(
            ctypes.byref(self.struct()),
            *(Address(x.data_ptr()) for x in (index.start, index.source, index.share)),
            ctypes.c_int64(index.means),
            *(Address(pointer(x)) for x in (self.unknown, scale, shift)),
            *(ctypes.c_float(limit) for limit in (low, high)),
            Address(out.data_ptr()),
        )
        return out


_ROWS: dict[tuple[int, Fill], Tensor] = {}


def outside_row(channels: int, fill: Fill) -> Tensor:
    """Row that stands for everything outside the image."""
    if (channels, fill) not in _ROWS:
        value = torch.finfo(torch.float32).min if fill == "lowest" else 0.0
        _ROWS[channels, fill] = torch.full((channels,), value)
    return _ROWS[channels, fill]
