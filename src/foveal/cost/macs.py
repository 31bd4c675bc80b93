"""Multiply-accumulates that were executed, counted in PyTorch's dispatcher and in the C kernels.

One multiply-accumulate (MAC) is two FLOPs. Counted are convolutions, matrix products and bilinear
interpolation (4 MACs an output sample); not biases, norms, activations, pooling and comparisons.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from foveal.kernels.build import OBSERVER

aten = torch.ops.aten
CONVOLUTIONS = {aten.convolution, aten._convolution, aten.convolution_overrideable}
BILINEAR = {aten.upsample_bilinear2d, aten._upsample_bilinear2d_aa}


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates [MAC].

    Attributes:
        convolution: Of convolutions.
        interpolation: Of bilinear interpolation.
        product: Of matrix products.
    """

    convolution: int = 0
    interpolation: int = 0
    product: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.convolution + self.interpolation + self.product


def count_macs(run: Callable[[], Any]) -> Macs:
    """Run something once without gradients, and count; a count within another one is not part of that."""
    with torch.no_grad(), _Counter() as counter:
        token, inner = OBSERVER.set(counter.add), INNERMOST.set(counter)
        try:
            run()
        finally:
            OBSERVER.reset(token)
            INNERMOST.reset(inner)
    return Macs(**counter.sums)


def relative_macs(part: nn.Module, whole: nn.Module, size: tuple[int, int], level: int = 0) -> float:
    """Count a network of images as a share of another, by running both on one small image of `size` [px].

    The part sees it reduced by 2^level.

    It runs: to count on the meta device, PyTorch would load its compiler, which takes seconds.
    """
    like = next(whole.parameters(), torch.empty(0))
    channels = int(getattr(whole, "in_channels", 3))
    image = torch.zeros(1, channels, *size, dtype=like.dtype, device=like.device)
    reduced = image[:, :, :: 2**level, :: 2**level].contiguous()
    # A copy of one in training mode: its statistics stay as they are.
    small, large = (copy.deepcopy(net).eval() if net.training else net for net in (part, whole))
    ours, theirs = count_macs(partial(small, reduced)), count_macs(partial(large, image))
    return ours.total / max(1, theirs.total)


INNERMOST: ContextVar[_Counter | None] = ContextVar("innermost", default=None)
"""The count that is going on now."""


class _Counter(TorchDispatchMode):
    """Sees every operation that the dispatcher runs; formulas are PyTorch's own.

    Not `FlopCounterMode`: entering that one imports the compiler, which takes seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sums = {"convolution": 0, "interpolation": 0, "product": 0}

    def add(self, kind: str, macs: int) -> None:
        """Take what a C kernel did."""
        self.sums[kind] += macs

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and add its MACs to its kind."""
        kwargs = kwargs or {}
        if INNERMOST.get() is not self:
            return func(*args, **kwargs)
        operation = func._overloadpacket
        if operation not in flop_registry and operation not in BILINEAR:
            with self:
                out = func.decompose(
                    *args, **kwargs
                )  # under inference_mode, composite operations arrive whole
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if operation in BILINEAR:
            self.sums["interpolation"] += 4 * out.numel()
        elif operation in flop_registry:
            kind = "convolution" if operation in CONVOLUTIONS else "product"
            self.sums[kind] += flop_registry[operation](*args, **kwargs, out_val=out) // 2
        return out
