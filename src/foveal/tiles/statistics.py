"""Statistics of whole images on tiles: every sample counts with the area of the image that it stands for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.area import areas
from foveal.tiles.axes import CHANNELS, as_seen
from foveal.tiles.channels import along_channels
from foveal.tiles.rules import Rule, batch_norm, named, nchw, need, plain, rule
from foveal.tiles.tensor import TileTensor, pool


@rule(*named("mean"))
def mean(func: Rule, x: TileTensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    """Average over the whole image or over channels."""
    dims = (
        {d % x.ndim for d in (dim if isinstance(dim, list | tuple) else [dim])} if dim is not None else set()
    )
    if dims and all(x.axes[d] == CHANNELS for d in dims):
        return along_channels(func, x, dim, keepdim, **kwargs)
    letters = "".join(sorted("".join(x.axes[d] for d in dims)))
    need(letters == "hw", "mean other than over the image or over channels")
    sums = global_mean(nchw(x)).reshape(x.layout.images, *x.channels, 1, 1)
    seen = as_seen(sums, x.axes)
    return seen if keepdim else seen.squeeze(tuple(dims))


def global_mean(x: TileTensor) -> Tensor:
    """Mean over the image [N, C]: every sample of a tile counts with the area it stands for."""
    return _image_mean(pool(x, "global mean"), x)


def _image_mean(tiles: Tensor, x: TileTensor) -> Tensor:
    """Mean over the images [N, C] of tiles [B, C, side, side], kept ones included."""
    layout = x.layout
    area = areas(layout, x.side, tiles.device).to(tiles.dtype)
    sums = torch.einsum("bchw,bhw->bc", tiles.masked_fill(area[:, None] == 0, 0.0), area)
    image = layout.image_on(tiles.device)
    total = tiles.new_zeros(layout.images, tiles.shape[1]).index_add(0, image, sums)
    norm = tiles.new_zeros(layout.images).index_add(0, image, area.sum((1, 2)))
    return total / norm.clamp(min=1)[:, None]


@rule(F.group_norm)
def group_norm(
    func: Rule,
    x: TileTensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> TileTensor:
    """Normalise groups of channels by their mean and variance over the image."""
    return x.with_tiles(_normalised(x, num_groups, weight, bias, eps, "group norm"))


@rule(F.instance_norm)
def instance_norm(
    func: Rule,
    x: TileTensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> TileTensor:
    """Normalise every channel by its mean and variance over the image, or by those that are given."""
    if not use_input_stats:
        return batch_norm(F.batch_norm, x, running_mean, running_var, weight, bias, False, momentum, eps)
    need(running_mean is None, "instance_norm in training that keeps running statistics")
    return x.with_tiles(_normalised(x, plain(x).channels[0], weight, bias, eps, "instance norm"))


def _normalised(
    x: TileTensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, name: str
) -> Tensor:
    tiles = pool(x, name)
    channels = tiles.shape[1]

    def per_group(values: Tensor) -> Tensor:
        """Mean over every group of channels, given again to each of them [N, C]."""
        means = values.unflatten(1, (groups, -1)).mean(2)
        return means.repeat_interleave(channels // groups, 1)

    image = x.layout.image_on(tiles.device)
    centre = per_group(_image_mean(tiles, x))
    centred = tiles - centre[image][:, :, None, None]
    variance = per_group(_image_mean(centred.square(), x))
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    here = image[: x.layout.computed]
    out = centred[: x.layout.computed] * scale[here][:, :, None, None]
    return out if bias is None else out + bias[:, None, None]
