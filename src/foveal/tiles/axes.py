"""In which order the axes of a map are seen: N, C, H, W, or what permuting and reshaping have made of them.

Networks move channels last, flatten rows and columns to a sequence, or split channels into groups, and undo
it later. None of that mixes samples, so tiles need not know: they keep their own order, and a map notes how
it is seen. An axis is "c" for channels, of which there may be several, or the letters of what it counts: "n"
images, "h" rows, "w" columns, "hw" the samples of an image in reading order, "nhw" those of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

Axes = tuple[str, ...]
NCHW: Axes = ("n", "c", "h", "w")
CHANNELS = "c"


class MixesSamples(ValueError):
    """A reshaping after which one axis counts parts of samples, or of channels and samples together."""


def describe(axes: Axes) -> str:
    """Write axes as people do: (N, H, W, C)."""
    return f"({', '.join('·'.join(axis.upper()) for axis in axes)})"


def channel_axes(axes: Axes) -> list[int]:
    """Positions of the axes of channels."""
    return [place for place, axis in enumerate(axes) if axis == CHANNELS]


def permute(axes: Axes, order: Sequence[int]) -> tuple[Axes, list[int]]:
    """Return the axes in another order, and the order that their channel axes then have."""
    number = {place: k for k, place in enumerate(channel_axes(axes))}
    return tuple(axes[d] for d in order), [number[d] for d in order if d in number]


def shape(axes: Axes, channels: Sequence[int], extent: dict[str, int]) -> tuple[int, ...]:
    """Sizes of the axes.

    Args:
        axes: Order in which they are seen.
        channels: Sizes of the channel axes.
        extent: Size of "n", "h" and "w".
    """
    left = iter(channels)
    return tuple(
        next(left) if axis == CHANNELS else prod((extent[k] for k in axis[1:]), start=extent[axis[0]])
        for axis in axes
    )


def reshape(
    axes: Axes, channels: Sequence[int], extent: dict[str, int], target: Sequence[int]
) -> tuple[Axes, list[int]]:
    """Say what the axes are after a reshaping.

    Args:
        axes: Order in which they are seen now.
        channels: Sizes of the channel axes.
        extent: Size of "n", "h" and "w".
        target: Sizes wanted; one may be -1.

    Returns:
        The axes, and the sizes of the channel axes.

    Raises:
        MixesSamples: An axis would count parts of samples, or channels and samples together.
    """
    left = iter(channels)
    atoms = [
        (letter, next(left) if letter == CHANNELS else extent[letter]) for axis in axes for letter in axis
    ]
    count = prod(int(size) for _, size in atoms)
    known = prod(int(size) for size in target if size != -1)
    wanted = [count // max(known, 1) if size == -1 else int(size) for size in target]
    if prod(wanted) != count:
        raise MixesSamples(f"the sizes {tuple(wanted)} hold another number of values")
    found: list[tuple[str, int]] = []
    for source, sizes in _groups(atoms, wanted):
        found += _regroup(source, sizes)
    whole: list[tuple[str, int]] = []
    for axis, size in found:
        if axis.startswith("+"):  # axes of size 1 that were left over
            if not whole or whole[-1][0] == CHANNELS:
                raise MixesSamples("an axis of samples would be lost")
            whole[-1] = (whole[-1][0] + axis[1:], whole[-1][1])
        else:
            whole.append((axis, size))
    return tuple(axis for axis, _ in whole), [size for axis, size in whole if axis == CHANNELS]


def _groups(atoms: list[tuple[str, int]], wanted: list[int]) -> list[tuple[list[tuple[str, int]], list[int]]]:
    """Pair the shortest runs of old and new axes that hold the same number of values."""
    groups: list[tuple[list[tuple[str, int]], list[int]]] = []
    i = j = 0
    while i < len(atoms) or j < len(wanted):
        first, start = i, j
        i, j = min(i + 1, len(atoms)), min(j + 1, len(wanted))
        while (have := prod(size for _, size in atoms[first:i])) != (want := prod(wanted[start:j])):
            if have < want:
                i += 1
            else:
                j += 1
        while (
            first < i < len(atoms)
            and CHANNELS not in (atoms[i - 1][0], atoms[i][0])
            and atoms[i][1] == 1
            and wanted[j : j + 1] != [1]
        ):
            i += 1  # a single row or column belongs to the samples before it, not to the channels after it
        groups.append((atoms[first:i], wanted[start:j]))
    return groups


def _regroup(source: list[tuple[str, int]], sizes: list[int]) -> list[tuple[str, int]]:
    """Say what new axes of these sizes count; "+" marks letters that belong to the axis before."""
    letters = [(letter, size) for letter, size in source if letter != CHANNELS]
    if not letters:
        return [(CHANNELS, size) for size in sizes]
    if any(size > 1 for letter, size in source if letter == CHANNELS):
        raise MixesSamples("one axis would hold channels and samples together")
    found: list[tuple[str, int]] = []
    for size in sizes:
        if size == 1 and not (letters and letters[0][1] == 1):
            found.append((CHANNELS, 1))
            continue
        name, have = "", 1
        while letters and (not name or have < size):
            letter, extent = letters.pop(0)
            name, have = name + letter, have * extent
        if have != size or not name:
            raise MixesSamples("one axis would hold a part of the rows or columns")
        found.append((name, size))
    return [*found, *(("+" + letter, 1) for letter, _ in letters)]


def as_seen(x: Tensor, axes: Axes) -> Tensor:
    """Show a map [N, *channels, H, W] in the order of its axes."""
    places = _places(axes)
    spread = x.permute(places)
    sizes, at = [], 0
    for axis in axes:
        sizes.append(prod(spread.shape[at : at + len(axis)]))
        at += len(axis)
    return spread.reshape(sizes)


def as_stored(x: Tensor, axes: Axes, extent: dict[str, int]) -> Tensor:
    """Bring a tensor in the order of its axes to [N, *channels, H, W]."""
    sizes: list[int] = []
    for axis, size in zip(axes, x.shape, strict=True):
        sizes += [size] if len(axis) == 1 else [extent[letter] for letter in axis]
    return x.reshape(sizes).permute(torch.tensor(_places(axes)).argsort().tolist())


def _places(axes: Axes) -> list[int]:
    """Where the parts of the axes are in [N, *channels, H, W]."""
    parts = [letter for axis in axes for letter in axis]
    channels = parts.count(CHANNELS)
    place = {"n": 0, "h": channels + 1, "w": channels + 2}
    number = iter(range(1, channels + 1))
    return [next(number) if letter == CHANNELS else place[letter] for letter in parts]
