"""Convolutions, and transposed ones, as steps of a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from foveal.ops import Convolution
from foveal.program.builder import Builder, NotCompiled
from foveal.program.spec import ADD, CONCAT, CONVOLVE, DEPTHWISE, SLICE, SPREAD, TILED, UNCOUNTED

RATES = {"direct": 1.0, "winograd2": 1.5, "winograd4": 1.5}
"""Expected time of a multiplication by an algorithm, in that of the direct one."""
MOST_TAPS = 121
NARROW = 4
"""Channels up to which a filter of every channel by itself is computed as a product of them all."""
BLOCK = 32
"""Outputs that kernels compute together; groups of fewer are joined, which costs them nothing."""


def add_convolution(
    builder: Builder, name: str, c: Convolution, given: int, residual: int | None = None, blocks: int = 1
) -> int:
    """Add a convolution of map `given`, with everything around it, and return the map of its result.

    Args:
        builder: Takes the step.
        name: Of the step.
        c: What is computed.
        given: Number of the map.
        residual: Number of the map that is added.
        blocks: Of a dense convolution: the groups that its weights are blocks of, among zeros.

    Raises:
        NotCompiled: It takes another number of channels than the map has, or has groups and a prologue, or
            is depthwise with a very large window.
    """
    source = builder.maps[given]
    if source.channels != c.weight.shape[1] * c.groups:
        raise NotCompiled(f"'{name}' takes {c.weight.shape[1] * c.groups} channels, given {source.channels}")
    if c.groups > 1 and c.prologue is not None:
        raise NotCompiled(f"'{name}' is a convolution of {c.groups} groups with a norm before it")
    if c.groups > 1 and c.depthwise and source.channels > NARROW:
        return _add_depthwise(builder, name, c, given, residual)
    if c.groups > 1:
        return _add_groups(builder, name, c, given, residual)
    return _add_dense(builder, name, c, given, residual, blocks)


def _out(builder: Builder, c: Convolution, given: int) -> int:
    """Add the map of a convolution's result."""
    return builder.add_like(given, len(c.weight), c.stride)


def _add_dense(
    builder: Builder, name: str, c: Convolution, given: int, residual: int | None, groups: int = 1
) -> int:
    """Mix all channels; of weights that are blocks of several groups, only the blocks count."""
    source, out = builder.maps[given], _out(builder, c, given)
    fields: dict[str, float] = {"factor": groups}
    weight, bias, outside = _array(c.weight), _array(c.bias), None
    assert weight is not None
    if c.prologue is not None and c.prologue.linear:
        scale, shift = (x.double().numpy() for x in (c.prologue.scale, c.prologue.shift))
        moved = np.einsum("ocij,c->o", weight, shift)
        bias = moved if bias is None else bias + moved
        weight, outside = weight * scale[None, :, None, None], -shift / scale
    elif c.prologue is not None:
        fields["before_scale"] = builder.add_numbers(c.prologue.scale.numpy())
        fields["before_shift"] = builder.add_numbers(c.prologue.shift.numpy())
        fields |= {"before_low": c.prologue.low, "before_high": c.prologue.high}
    scaled = c.residual_scale is not None and not bool((c.residual_scale == 1).all())
    clamped = c.prologue is not None and not c.prologue.linear
    builder.add_step(
        name,
        CONVOLVE,
        given,
        out,
        other=-1 if residual is None else residual,
        weight=builder.add_numbers(weight),
        bias=builder.add_numbers(bias),
        outside=builder.add_numbers(outside),
        residual_scale=builder.add_numbers(_array(c.residual_scale) if scaled else None),
        rate=_rates(c, clamped, source.kind),
        **_window(c),
        **fields,
    )
    return out


def _add_groups(builder: Builder, name: str, c: Convolution, given: int, residual: int | None) -> int:
    """Mix channels within groups: some neighbouring groups at a time, their weights blocks among zeros."""
    taken, made = c.weight.shape[1], len(c.weight) // c.groups
    joined = min(c.groups, -(-BLOCK // made))
    if joined == c.groups:
        return _add_dense(builder, name, _with_blocks(c, 0, joined), given, residual, joined)
    out = _out(builder, c, given)
    for first in range(0, c.groups, joined):
        groups = min(joined, c.groups - first)
        label, at = f"{name}.{first}", first * made
        part = _slice(builder, f"{label}.slice", given, first * taken, groups * taken)
        more = None
        if residual is not None:
            more = _slice(builder, f"{label}.residual", residual, at, groups * made)
        found = _add_dense(builder, label, _with_blocks(c, first, groups), part, more, groups)
        builder.add_step(f"{label}.join", CONCAT, found, out, at=at)
    return out


def in_order(c: Convolution, order: Sequence[int]) -> Convolution | None:
    """Let a convolution of channels in an order read them as they lie; None if its groups must stay apart."""
    if c.groups > 1 and c.groups > -(-BLOCK // (len(c.weight) // c.groups)):
        return None
    weight = _with_blocks(c, 0, c.groups).weight
    back = torch.tensor(order).argsort()
    before = c.prologue
    if before is not None:
        before = replace(before, scale=before.scale[back], shift=before.shift[back])
    return replace(c, weight=weight[:, back], groups=1, prologue=before)


def add_order(builder: Builder, name: str, given: int, order: Sequence[int]) -> int:
    """Bring the channels of a map into an order, and return the map of the result."""
    weight = torch.eye(len(order))[list(order)][:, :, None, None]
    out = _add_dense(builder, name, Convolution(weight, None), given, None)
    builder.steps[-1].function = UNCOUNTED
    return out


def _with_blocks(c: Convolution, first: int, groups: int) -> Convolution:
    """Write some groups of a convolution as one that mixes all of their channels."""
    taken, made = c.weight.shape[1], len(c.weight) // c.groups
    outputs = slice(first * made, (first + groups) * made)
    weight = c.weight.new_zeros(groups * made, groups * taken, *c.kernel)
    for k, block in enumerate(c.weight[outputs].split(made)):
        weight[k * made : (k + 1) * made, k * taken : (k + 1) * taken] = block
    bias, scale = (None if x is None else x[outputs] for x in (c.bias, c.residual_scale))
    return replace(c, weight=weight, bias=bias, residual_scale=scale, groups=1)


def _slice(builder: Builder, name: str, given: int, at: int, channels: int) -> int:
    """Take some channels of a map."""
    out = builder.add_like(given, channels)
    builder.add_step(name, SLICE, given, out, at=at)
    return out


def _add_depthwise(builder: Builder, name: str, c: Convolution, given: int, residual: int | None) -> int:
    """Filter every channel by itself; a residual is added by a step of its own.

    Raises:
        NotCompiled: Its window is very large, or it scales the residual.
    """
    if c.kernel[0] * c.kernel[1] > MOST_TAPS:
        raise NotCompiled(f"'{name}' is depthwise with a window of {c.kernel[0]}x{c.kernel[1]} samples")
    out, window = _out(builder, c, given), _window(c)
    if residual is not None:
        window["low"], window["high"] = -np.inf, np.inf
    builder.add_step(
        name,
        DEPTHWISE,
        given,
        out,
        weight=builder.add_numbers(c.weight.detach().float().flatten(1).t().numpy()),
        bias=builder.add_numbers(_array(c.bias)),
        **window,
    )
    if residual is None:
        return out
    total = builder.add_like(out)
    if c.residual_scale is not None and not bool((c.residual_scale == 1).all()):
        raise NotCompiled(f"'{name}' is depthwise and scales its residual")
    builder.add_step(f"{name}.add", ADD, out, total, other=residual, low=c.low, high=c.high)
    return total


class _Window(TypedDict):
    """Fields of a step that say what a filter sees, and the limits of its result."""

    rows: int
    columns: int
    stride: int
    dilation: int
    top: int
    left: int
    low: float
    high: float


def _window(c: Convolution) -> _Window:
    (rows, columns), (top, left) = c.kernel, c.padding
    return _Window(
        rows=rows,
        columns=columns,
        stride=c.stride,
        dilation=c.dilation,
        top=top,
        left=left,
        low=c.low,
        high=c.high,
    )


def _rates(c: Convolution, clamped: bool, kind: int) -> tuple[float, float, float]:
    """Say which algorithms can compute a convolution, and how fast they are expected to be."""
    squares = c.kernel == (3, 3) and c.stride == c.dilation == 1 and c.padding == (1, 1)
    if clamped or not squares or kind != TILED:
        return RATES["direct"], 0.0, 0.0
    return RATES["direct"], RATES["winograd2"], RATES["winograd4"]


def _array(x: Tensor | None) -> Any:
    return None if x is None else x.detach().double().numpy()


def add_transposed(builder: Builder, name: str, module: nn.ConvTranspose2d, given: int) -> int:
    """Add a transposed convolution of map `given` and return the map of its result.

    Windows that lie side by side are one product a sample, spread over a square; others are a convolution
    for every place of the square.

    Raises:
        NotCompiled: It does not grow the map by its stride, or it has groups.
    """
    step, stride = module.stride[0], builder.maps[given].stride
    if builder.maps[given].kind != TILED:
        raise NotCompiled(f"'{name}' is a transposed convolution in a module that sees the whole map")
    if module.groups > 1 or module.stride != (step, step) or stride % step:
        raise NotCompiled(f"'{name}' is a transposed convolution of groups, or beyond the image's resolution")
    grows = all(
        d * (k - 1) + 1 + o - 2 * p == step
        for k, d, o, p in zip(
            module.kernel_size, module.dilation, module.output_padding, _numbers(module), strict=True
        )
    )
    if not grows:
        raise NotCompiled(f"'{name}' is a transposed convolution that does not grow the map by its stride")
    squares = _side_by_side(builder, name, module, given) or _phases(builder, name, module, given)
    out = builder.add_map(module.out_channels, stride // step)
    builder.add_step(name, SPREAD, squares, out, factor=step)
    return out


def _side_by_side(builder: Builder, name: str, module: nn.ConvTranspose2d, given: int) -> int | None:
    """Add one product for all places of a square; None if windows overlap or leave gaps."""
    if module.kernel_size != module.stride or module.dilation != (1, 1) or any(_numbers(module)):
        return None
    weight = module.weight.detach().permute(2, 3, 1, 0).reshape(-1, module.in_channels, 1, 1)
    bias = None if module.bias is None else module.bias.detach().repeat(module.stride[0] ** 2)
    return add_convolution(builder, f"{name}.product", Convolution(weight, bias), given)


def _phases(builder: Builder, name: str, module: nn.ConvTranspose2d, given: int) -> int:
    """Add a convolution for every place of a square, and join them."""
    step, outputs = module.stride[0], module.out_channels
    bias = None if module.bias is None else module.bias.detach()
    together = builder.add_map(step * step * outputs, builder.maps[given].stride)
    for row in range(step):
        for column in range(step):
            weight, top = _along(module.weight.detach().transpose(0, 1), 2, row, module)
            weight, left = _along(weight, 3, column, module)
            phase = Convolution(weight.contiguous(), bias, padding=(top, left))
            label = f"{name}.{row}.{column}"
            found = add_convolution(builder, label, phase, given)
            at = (row * step + column) * outputs
            builder.add_step(f"{label}.join", CONCAT, found, together, at=at)
    return together


def _along(weight: Tensor, dim: int, phase: int, module: nn.ConvTranspose2d) -> tuple[Tensor, int]:
    """Take the weights [O, C, rows, columns] that meet a phase along an axis; say how many look back."""
    axis = dim - 2
    step, padding, dilation = module.stride[axis], _numbers(module)[axis], module.dilation[axis]
    shifted = phase + padding
    met = {
        (shifted - k * dilation) // step: k
        for k in range(weight.shape[dim])
        if (shifted - k * dilation) % step == 0
    }
    first, last = min([0, *met]), max([0, *met])
    none = torch.zeros_like(weight.select(dim, 0))
    taken = [weight.select(dim, met[k]) if k in met else none for k in range(first, last + 1)]
    return torch.stack(taken, dim), -first


def _numbers(module: nn.ConvTranspose2d) -> tuple[int, int]:
    """Return the padding; transposed convolutions have no other than numbers."""
    rows, columns = [int(number) for number in module.padding]
    return rows, columns
