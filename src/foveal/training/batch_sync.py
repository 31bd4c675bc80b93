"""What a step computes over the batch as a whole, when several processes hold parts of it.

That is the statistics of BatchNorm, for images and for tiles, and the sum of weights that the cross entropy
is divided by. Two functions of torch are replaced while the loss is computed, so methods, losses and networks
know nothing of it. One thing stays apart: norms inside a module that sees the dense map (`run_dense`), while
it is given tiles. It runs once per finest level that occurs in a part, not equally often everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as group
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from foveal.tiles.tensor import TileTensor


def dense_modules(method: nn.Module) -> list[nn.Module]:
    """Find the modules that see the dense map of tiles."""
    return [module for module in method.modules() if isinstance(module.forward, partial)]


@contextmanager
def as_one(method: nn.Module) -> Iterator[None]:
    """Compute the loss of a method as if the parts of the batch were together."""
    mode = AsOne()
    handles = [module.register_forward_pre_hook(mode.enter_module) for module in dense_modules(method)]
    handles += [module.register_forward_hook(mode.leave_module) for module in dense_modules(method)]
    try:
        with mode:
            yield
    finally:
        for handle in handles:
            handle.remove()


class AsOne(TorchFunctionMode):
    """Replaces the two functions that depend on the whole batch.

    Attributes:
        apart: Whether a module that sees the dense map of tiles is running.
    """

    apart = False

    def enter_module(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Note what such a module is given."""
        self.apart = any(isinstance(x, TileTensor) for x in args)

    def leave_module(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        """Note that it is done."""
        self.apart = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch, or what stands in its place."""
        kwargs = kwargs or {}
        if func is F.cross_entropy:
            return cross_entropy(*args, **kwargs)
        if func is not F.batch_norm or self.apart:
            return func(*args, **kwargs)
        if isinstance(args[0], TileTensor):
            with self:  # a mode is off while it works, and the rule of the tiles calls batch_norm once more
                return TileTensor.__torch_function__(func, types, args, kwargs)
        return batch_norm(*args, **kwargs)


def batch_norm(x: Tensor, mean: Tensor | None, var: Tensor | None, *args: Any, **kwargs: Any) -> Tensor:
    """Normalise [N, C, ...] as `F.batch_norm`, in training by the statistics of all processes."""
    names = ("weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, args, strict=False)) | kwargs
    if not given.get("training"):
        return F.batch_norm(x, mean, var, *args, **kwargs)
    dims = [dim for dim in range(x.ndim) if dim != 1]
    shape = [-1 if dim == 1 else 1 for dim in range(x.ndim)]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    count = _total(wide.new_tensor([x.numel() / x.shape[1]]))
    centre = _total(wide.sum(dims)) / count
    apart = wide - centre.view(shape)
    spread = _total(apart.square().sum(dims)) / count
    _remember(mean, var, centre, spread * count / (count - 1).clamp(min=1), given.get("momentum", 0.1))
    scale = (spread + given.get("eps", 1e-5)).rsqrt()
    y = apart * (scale if given.get("weight") is None else scale * given["weight"].to(wide)).view(shape)
    y = y if given.get("bias") is None else y + given["bias"].to(wide).view(shape)
    return y.to(x.dtype)


@torch.no_grad()
def _remember(
    mean: Tensor | None, var: Tensor | None, centre: Tensor, spread: Tensor, momentum: float
) -> None:
    if mean is not None and var is not None:
        mean.lerp_(centre.to(mean.dtype), momentum)
        var.lerp_(spread.to(var.dtype), momentum)


def cross_entropy(logits: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Cross entropy per pixel, so weighed that the mean of the processes' means is the mean of all pixels.

    A process divides by the weight W of its own labelled pixels; times (its W / average W) it has divided by
    the average. Nothing changes where no gradient is asked for.
    """
    loss = F.cross_entropy(logits, target, *args, **kwargs)
    weight = kwargs.get("weight", args[0] if args else None)
    if not logits.requires_grad or loss.ndim == 0:
        return loss
    labelled = target != kwargs.get("ignore_index", -100)
    own = labelled.float() if weight is None else weight[target * labelled] * labelled
    mine = own.sum()
    mean = _total(mine) / group.get_world_size()
    return loss * (mine / mean.clamp(min=1e-6))


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is the gradient, because every process's loss depends on the sum."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        """Add up."""
        total = x.detach().clone().contiguous()
        group.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        """Add up what the processes want."""
        total = gradients[0].detach().clone().contiguous()
        group.all_reduce(total)
        return total


def _total(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)
    return total
