"""A feature map stored as tiles, with the interface of the dense map that it represents.

An unmodified network runs on it: PyTorch hands every call of a torch function with a `TileTensor` among its
arguments to `__torch_function__`, and one table of rules (`foveal.tiles.rules`) says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foveal.geometry.layout import Borders, Layout
from foveal.geometry.plan import Plan
from foveal.ops import compose_tiles, cut_tiles
from foveal.storage.given import need
from foveal.tiles import axes as order
from foveal.tiles.axes import NCHW, Axes
from foveal.tiles.extent import Extent
from foveal.tiles.grid import as_plain
from foveal.tiles.memory import Memory, Tape, join

RULES: dict[Any, Callable[..., Any]] = {}
"""Torch function -> what it means on tiles. `foveal.tiles.rules` fills it."""


SURVEY: ContextVar[Callable[..., Any] | None] = ContextVar("survey", default=None)
"""If set, called with (error, function, arguments, keywords) where `NoTileRule` would be raised."""


EXACT: ContextVar[bool] = ContextVar("exact", default=False)
"""Whether windows are refused that a dense network would drop from an image that is coarse everywhere.

Patches that do not fill the reduced image leave a rest at its edge. Tiles keep it, as they do beside finer
tiles; whether an image is coarse everywhere depends on what it shows, so a run must not fail of it.
"""


class NoTileRule(TypeError):
    """An operation that has no rule for tiles."""


class WrongGeometry(NoTileRule):
    """An operation that has a meaning on tiles, but not of these sides: another image or tile is needed.

    Attributes:
        advice: What to change.
    """

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}; {advice}")
        self.advice = advice


@dataclass(frozen=True, eq=False)
class TileTensor:
    """One batch of tiles, and where they lie.

    Attributes:
        tiles: [B, C, side, side]; values outside the image are undefined. A map that is seen with another
            number of channel axes has so many here: [B, *channels, side, side].
        layout: Place of every tile.
        tape: Recorder of features for a later pass, if wanted.
        pad: Zeros around the map that the next convolution or pooling will see (left, right, top, bottom).
        axes: Order in which the network sees the axes of the map.
    """

    tiles: Tensor
    layout: Layout
    tape: Tape | None = field(default=None, repr=False)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    axes: Axes = NCHW

    @property
    def side(self) -> int:
        """Samples on a tile's side."""
        return self.tiles.shape[-1]

    @property
    def channels(self) -> torch.Size:
        """Sizes of the channel axes."""
        return self.tiles.shape[1:-2]

    @property
    def stride(self) -> int:
        """Input pixels per sample at level 0."""
        return self.layout.tile // self.side

    @property
    def extent(self) -> dict[str, int]:
        """Images "n", rows "h" and columns "w" of the dense map, an explicit padding included.

        The dense map is at the finest level that occurs in an image, as the network would be given it; if
        that differs among images, a side is the one at the finest of all, and knows the others.
        """
        left, right, top, bottom = self.pad
        sizes = {level: self.layout.extent(self.side, level) for level in set(self.layout.finest)}
        height, width = (Extent({k: both[axis] for k, both in sizes.items()}, self.side) for axis in (0, 1))
        return {"n": self.layout.images, "h": height + top + bottom, "w": width + left + right}

    @property
    def shape(self) -> torch.Size:
        """Shape of the dense map it stands for: [N, C, H, W], unless its axes are seen in another order."""
        return torch.Size(order.shape(self.axes, self.channels, self.extent))

    @property
    def device(self) -> torch.device:
        """Where the tiles are."""
        return self.tiles.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the tiles."""
        return self.tiles.dtype

    @property
    def ndim(self) -> int:
        """Dimensions of the dense map."""
        return len(self.axes)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow into the tiles."""
        return self.tiles.requires_grad

    def dim(self) -> int:
        """Dimensions of the dense map."""
        return len(self.axes)

    def numel(self) -> int:
        """Number of values of the dense map."""
        return self.shape.numel()

    def size(self, dim: int | None = None) -> Any:
        """Shape of the dense map, or one of its sides."""
        return self.shape if dim is None else self.shape[dim]

    def with_tiles(self, tiles: Tensor, axes: Axes = NCHW) -> TileTensor:
        """Return the same places with other values, seen as [N, C, H, W] unless axes are given."""
        return TileTensor(tiles, self.layout, self.tape, axes=axes)

    def dense(self) -> Tensor:
        """Compose the dense map [N, C, H, W] at full resolution, kept places included.

        Raises:
            NoTileRule: Explicit padding is pending; only a convolution or pooling can take it.
        """
        return compose_tiles(pool(self, "compose"), self.layout)

    def memory(self, attached: bool = False) -> Memory | None:
        """What a later pass may keep, with its gradients if `attached`; None if nothing was recorded."""
        return self.tape.memory(attached) if self.tape else None

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Look the function up in the table of rules.

        Raises:
            NoTileRule: It is not there.
        """
        found = RULES.get(func)
        try:
            if found is None:
                raise NoTileRule(no_rule(name_of(func)))
            return found(func, *map(as_plain, args), **(kwargs or {}))
        except NoTileRule as error:
            survey = SURVEY.get()
            if survey is None:
                raise
            return survey(error, func, args, kwargs or {})

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Give tensor methods by their rule."""
        method = getattr(Tensor, name, None) if not name.startswith("__") else None
        if not callable(method):
            raise AttributeError(f"a TileTensor has no attribute '{name}'")
        return partial(_call, method, self)

    def __getitem__(self, index: Any) -> TileTensor:
        """Take channels, or crop to the map's own size."""
        return self.__torch_function__(Tensor.__getitem__, (TileTensor,), (self, index))

    def __add__(self, other: Any) -> TileTensor:
        return _call(Tensor.add, self, other)

    def __sub__(self, other: Any) -> TileTensor:
        return _call(Tensor.sub, self, other)

    def __mul__(self, other: Any) -> TileTensor:
        return _call(Tensor.mul, self, other)

    def __truediv__(self, other: Any) -> TileTensor:
        return _call(Tensor.div, self, other)

    def __rsub__(self, other: Any) -> TileTensor:
        return _call(Tensor.add, -self, other)

    def __neg__(self) -> TileTensor:
        return _call(Tensor.neg, self)

    def __rtruediv__(self, other: Any) -> TileTensor:
        return _call(Tensor.reciprocal, self) * other

    def __pow__(self, other: Any) -> TileTensor:
        return _call(Tensor.pow, self, other)

    def __matmul__(self, other: Any) -> TileTensor:
        return _call(Tensor.matmul, self, other)

    __radd__ = __add__
    __rmul__ = __mul__


def _call(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return TileTensor.__torch_function__(method, (TileTensor,), args, kwargs)


def name_of(func: Callable[..., Any]) -> str:
    """Name of a torch function, as a user would write it."""
    return getattr(func, "__name__", str(func))


def no_rule(operation: str) -> str:
    """Say that an operation has no rule, and what to do."""
    return (
        f"{operation} has no rule for tiles; name the module that calls it in `dense_modules` (it then sees "
        "the dense map), or add a rule in foveal/tiles/rules.py"
    )


def pool(x: TileTensor, operation: str) -> Tensor:
    """Return the tiles of a map together with those kept from before."""
    if any(x.pad):
        raise NoTileRule(no_rule("composing a map after an explicit padding"))
    if x.axes != NCHW:
        raise NoTileRule(no_rule(f"composing a map whose axes are {order.describe(x.axes)}"))
    kept = x.tape.exchange(operation, x.tiles) if x.tape else None
    return x.tiles if kept is None else torch.cat([x.tiles, kept])


def split(
    image: Tensor,
    plan: Plan,
    memory: Memory | None = None,
    remember: bool = False,
    borders: Borders = "average",
) -> TileTensor:
    """Cut images into the tiles of a plan.

    Args:
        image: [N, C, H, W] of the plan's size.
        plan: Which tiles are computed.
        memory: What an earlier pass or frame left; skipped places are read from there.
        remember: Whether the network's features are recorded for a later pass.
        borders: What tiles see of finer neighbours: their average, the first of the samples ("strided"); or
            zeros wherever another tile is.

    Raises:
        ValueError: The plan is for images of another size or number, the memory does not fit, or there are no
            such borders.
    """
    need(image, Tensor, "image", "a tensor [N, C, H, W]")
    need(plan, Plan, "plan", "a foveal.Plan")
    if tuple(image.shape[2:]) != plan.size or len(image) != len(plan.levels):
        raise ValueError(
            f"the plan is for {len(plan.levels)} images of {plan.size[0]}x{plan.size[1]}, given "
            f"{len(image)} of {image.shape[2]}x{image.shape[3]}"
        )
    layout, chosen = plan.layout, None
    if memory is not None:
        layout, chosen = join(layout, memory)
    layout = layout.with_borders(borders)
    tape = Tape(layout, memory, chosen, remember) if remember or memory is not None else None
    return TileTensor(cut_tiles(image, layout, plan.tile), layout, tape)
