"""Transposed convolutions as steps: every phase of the result is an ordinary convolution of the map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveal.ops import Convolution
from foveal.program.builder import Builder, NotCompiled
from foveal.program.layers import add_convolution
from foveal.program.spec import CONCAT, SPREAD


def add_transposed(builder: Builder, name: str, module: nn.ConvTranspose2d, given: int) -> int:
    """Add a transposed convolution of map `given` and return the map of its result.

    Windows that lie side by side are one product a sample, spread over a square; others are a convolution
    for every place of the square.

    Raises:
        NotCompiled: It does not grow the map by its stride, or it has groups.
    """
    step, stride = module.stride[0], builder.maps[given].stride
    if module.groups > 1 or module.stride != (step, step) or stride % step:
        raise NotCompiled(f"'{name}' is a transposed convolution of groups, or beyond the image's resolution")
    grows = all(
        d * (k - 1) + 1 + o - 2 * int(p) == step
        for k, d, o, p in zip(
            module.kernel_size, module.dilation, module.output_padding, module.padding, strict=True
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
    if module.kernel_size != module.stride or module.dilation != (1, 1) or any(map(int, module.padding)):
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
    step, padding, dilation = module.stride[axis], int(module.padding[axis]), module.dilation[axis]
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
