"""How far a network looks: what a window needs around it so that its labels are those of the whole image.

It is measured, not read off the layers: half of an image becomes NaN, which every product, sum and maximum
hands on, and the labels' logits that are finite in the other half saw none of it. The border lies where
borders of windows lie, so the first finite column says how many pixels a window needs there. This holds for
any network that PyTorch runs, whatever its layers are called, and it takes strides, dilations and the
enlargement of the logits into account. A network in which NaN comes everywhere has modules that see the
whole map.

Another way was to borrow the borders of the plan, layer by layer, from a memory of neighbouring windows: it
needs no overlap, but a memory of every layer of every border, and an order of windows that no shard can
keep.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveal.methods.padding import device_of
from foveal.ops import upsample

MOST = 4096
"""Pixels that a network may look around it; one that looks further sees the whole map."""
SAME = 1e-3
"""Difference of logits that is rounding."""
CONTEXT = 256
"""Pixels around a window for a network that sees the whole map: its context is that of window and border."""


def measure_reach(network: nn.Module, channels: int, unit: int) -> int | None:
    """Return how many pixels beyond a border decide labels on this side of it; None for the whole image.

    Args:
        network: Module from images [N, C, H, W] in 0..1 to logits.
        channels: Channels C.
        unit: Borders lie at multiples of it [px].
    """
    if getattr(network, "dense_modules", ()):  # it says so itself
        return None
    found = 0
    with torch.inference_mode():
        for across in (True, False):
            for before in (True, False):
                one = _one_side(network, channels, unit, across, before)
                if one is None:
                    return None
                found = max(found, one)
        same = all(_is_shifted(network, channels, unit, found, across) for across in (True, False))
    return found if same else None


def _one_side(network: nn.Module, channels: int, unit: int, across: bool, before: bool) -> int | None:
    """Measure in one direction: columns or rows, from what lies before a border or behind it."""
    half = 4 * unit
    while True:
        shape = (channels, unit, 2 * half) if across else (channels, 2 * half, unit)
        image = torch.full((1, *shape), 0.5, device=device_of(network))
        image = image.to(next(iter(network.parameters()), image).dtype)
        line = image.movedim(-1 if across else -2, 0)
        line[slice(None, half) if before else slice(half, None)] = torch.nan
        spoilt = ~_finite(network(image), (shape[1], shape[2]), across)
        side = spoilt[half:] if before else spoilt[:half].flip(0)
        reach = int(side.nonzero().max()) + 1 if bool(side.any()) else 0
        if reach < half:
            return reach
        if half >= MOST:
            return None
        half *= 2


def _is_shifted(network: nn.Module, channels: int, unit: int, reach: int, across: bool) -> bool:
    """Whether a part of an image gives what the image gives there; else maps are placed by its sides."""
    border, more = 2 * unit, -(-reach // unit) * unit
    side = border + more + 3 * unit
    shape = (channels, unit, side) if across else (channels, side, unit)
    image = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
    image = image.to(device_of(network), next(iter(network.parameters()), image).dtype)
    axis = 3 if across else 2
    whole = upsample(network(image).float(), (shape[1], shape[2]))
    cut = image.narrow(axis, border, side - border)
    part = upsample(network(cut).float(), (cut.shape[2], cut.shape[3]))
    whole = whole.narrow(axis, border + more, side - border - more)
    part = part.narrow(axis, more, side - border - more)
    return bool(torch.allclose(whole, part, rtol=SAME, atol=SAME * float(whole.abs().max())))


def _finite(logits: Tensor, size: tuple[int, int], across: bool) -> Tensor:
    """Say of every column, or row, of the image whether all its enlarged logits are finite."""
    spoilt = logits.isnan().any(1, keepdim=True).float()
    reached = upsample(spoilt, size)[0, 0] > 0
    return ~reached.any(0 if across else 1)
