"""Maps in reduced precision, and what is computed on them, in NumPy only.

A map is rows of channels, padded with zeros to a multiple of `PADDING` channels. Its format says what the
numbers stand for: 8-bit numbers q stand for scale * (q - zero), bfloat16 numbers, held as their bits in
uint16, for themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["f32", "bf16", "u8"]
Array = NDArray[Any]
Floats = NDArray[np.float32]

KINDS: tuple[Kind, ...] = ("f32", "bf16", "u8")
"""Types of samples in the order of their numbers in reduced.h."""

TYPES: dict[Kind, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "bf16": np.dtype(np.uint16),
    "u8": np.dtype(np.uint8),
}
PADDING = 4
"""Channels of a row are a multiple of this."""


def padded(channels: int) -> int:
    """Return the channels of a row that holds so many."""
    return -(-channels // PADDING) * PADDING


def to_bf16(x: Array) -> NDArray[np.uint16]:
    """Round to bfloat16, to nearest even, and return the bits."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(nan, np.uint32(0x7FC0), rounded).astype(np.uint16)


def from_bf16(bits: Array) -> Floats:
    """Return the numbers that bfloat16 bits stand for."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


@dataclass(frozen=True)
class Format:
    """What the samples of a map are.

    Attributes:
        kind: Type of the samples.
        scale: Difference of two neighbouring 8-bit values.
        zero: The 8-bit number that stands for 0.

    Raises:
        ValueError: The scale is not positive, the zero point is not in 0..255, or either is given for a map
            that is not 8-bit.
    """

    kind: Kind
    scale: float = 1.0
    zero: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a map cannot be {self.kind!r}; possible are {', '.join(KINDS)}")
        if self.kind != "u8" and (self.scale, self.zero) != (1.0, 0):
            raise ValueError(f"scale and zero belong to 8-bit maps, this one is {self.kind}")
        if not (math.isfinite(self.scale) and self.scale > 0 and 0 <= self.zero <= 255):
            raise ValueError(f"scale {self.scale} must be positive and zero {self.zero} in 0..255")

    @classmethod
    def of_range(cls, low: float, high: float) -> Format:
        """Return the 8-bit format that covers low..high and 0, with 0 exactly on a step."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        return cls("u8", scale, round(-low / scale))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the arrays that hold such maps."""
        return TYPES[self.kind]

    def encode(self, x: Array) -> Array:
        """Return the samples that are nearest to real values."""
        if self.kind == "u8":
            steps = np.rint(np.asarray(x, np.float64) / self.scale + self.zero)
            return np.clip(steps, 0, 255).astype(np.uint8)
        return to_bf16(x) if self.kind == "bf16" else np.ascontiguousarray(x, np.float32)

    def decode(self, samples: Array) -> Floats:
        """Return the real values that samples stand for."""
        if self.kind == "u8":
            return (self.scale * (samples.astype(np.float64) - self.zero)).astype(np.float32)
        return from_bf16(samples) if self.kind == "bf16" else samples.astype(np.float32)

    def rows(self, x: Array) -> Array:
        """Encode real values [..., C] as rows [R, padded C]; what is added stands for 0."""
        rows = np.asarray(x, np.float32).reshape(-1, x.shape[-1])
        return self.encode(np.pad(rows, ((0, 0), (0, padded(rows.shape[1]) - rows.shape[1]))))


@dataclass(frozen=True)
class Steps:
    """Factor and shift that turn samples of one format into steps of another."""

    factor: float
    shift: float

    @classmethod
    def between(cls, source: Format, target: Format, scale: float = 1.0) -> Steps:
        """Return those for target = scale * source."""
        factor = scale * source.scale / target.scale
        return cls(factor, target.zero - factor * source.zero)


@dataclass(frozen=True, eq=False)
class Map:
    """A map as kernels read it, `Samples` in reduced.h.

    Attributes:
        format: What the samples are.
        own: Rows [R, C].
        height: Rows of a tile in the index, border included; of an image if there is no index.
        width: Columns, likewise.
        index: Row per place [tiles, height, width], int32, -1 outside; rows from R on are in `means`.
        means: Averages of finer samples [M, C].
        outside: What lies outside the image [C]; what stands for 0 if absent.
        border: Samples of the index beyond every side of a tile.
    """

    format: Format
    own: Array
    height: int
    width: int
    index: NDArray[np.int32] | None = None
    means: Array | None = None
    outside: Array | None = None
    border: int = 0

    def __post_init__(self) -> None:
        for rows in (self.own, self.means):
            if rows is not None and (rows.dtype != self.format.dtype or rows.shape[-1] % PADDING):
                raise ValueError(
                    f"rows of a {self.format.kind} map must be {self.format.dtype} with a multiple of "
                    f"{PADDING} channels, these are {rows.dtype} {list(rows.shape)}"
                )

    @property
    def channels(self) -> int:
        """Channels of a row, padding included."""
        return int(self.own.shape[1])

    @property
    def tiles(self) -> int:
        """Tiles of the index, or images."""
        if self.index is None:
            return len(self.own) // (self.height * self.width)
        return len(self.index)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width without the border."""
        return self.height - 2 * self.border, self.width - 2 * self.border

    @property
    def beyond(self) -> Array:
        """What lies outside the image [C]."""
        if self.outside is not None:
            return self.outside
        return np.full(self.channels, self.format.zero, self.format.dtype)


@dataclass(frozen=True, eq=False)
class ReducedConvolution:
    """A convolution of a map in reduced precision, with its surroundings, in real values.

    out = clamp(sum(w * x) + bias + residual_scale * residual, low, high), encoded in the target's format.

    Attributes:
        weight: [O, C, rows, columns]; [C, 1, rows, columns] if depthwise.
        source: Format of the input, 8-bit or bfloat16, which is also how it is multiplied.
        target: Format of the output.
        bias: [O].
        stride: Of the window, the same on both axes.
        padding: Samples before the map (top, left).
        dilation: Of the window, the same on both axes.
        depthwise: Whether every channel has its own window.
        residual: Format of the map that is added.
        residual_scale: Factor of the residual [O].
        low: Smallest output.
        high: Largest output.
    """

    weight: Floats
    source: Format
    target: Format
    bias: Floats | None = None
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    depthwise: bool = False
    residual: Format | None = None
    residual_scale: Floats | None = None
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if self.source.kind == "f32":
            raise ValueError("reduced precision multiplies u8 or bf16 maps, the source is f32")

    @property
    def outputs(self) -> int:
        """Number of outputs, without padding."""
        return int(self.weight.shape[0])

    @property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the window."""
        return int(self.weight.shape[2]), int(self.weight.shape[3])

    def sides(self, x: Map) -> tuple[int, int]:
        """Height and width of a tile of the output."""
        height, width = x.sides
        return -(-height // self.stride), -(-width // self.stride)
