"""Multiply-accumulates, by counting what really ran through PyTorch's dispatcher.

One multiply-accumulate (MAC) is two FLOPs. Counted are convolutions, matrix products and bilinear
interpolation (4 MACs an output sample); not biases, norms, activations, pooling and comparisons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

KINDS = {"convolution": "convolution", "upsample_bilinear2d": "interpolation"}


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
    """Run something once without gradients, and count."""
    aten = torch.ops.aten
    formulas = {aten.upsample_bilinear2d: _bilinear, aten._upsample_bilinear2d_aa: _bilinear}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        run()
    sums = {"convolution": 0, "interpolation": 0, "product": 0}
    for operation, flops in counter.get_flop_counts().get("Global", {}).items():
        name = str(operation).split(".")[-1]
        kind = next((kind for part, kind in KINDS.items() if part in name), "product")
        sums[kind] += flops // 2
    return Macs(**sums)


def _bilinear(*args: Any, out_shape: tuple[int, ...], **kwargs: Any) -> int:
    return 8 * prod(out_shape)
