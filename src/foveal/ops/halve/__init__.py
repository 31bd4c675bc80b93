"""Reduce a map by averaging 2 x 2 samples, once or several times."""

from __future__ import annotations

from torch import Tensor

from foveal.ops.halve import native, reference, spec, torch
from foveal.ops.op import Op, table

__all__ = ["halve", "halve_once"]

halve_once = Op("halve", spec.check, table(native.run, native.supports, torch.run, reference.run))


def halve(x: Tensor, times: int = 1, backend: str | None = None) -> Tensor:
    """Average 2 x 2 samples, `times` times over.

    [N, C, H, W] becomes [N, C, H / 2^times, W / 2^times], rounded up every time. At an odd edge the mean is
    over the samples that exist.

    Args:
        x: The map.
        times: How often the sides are halved; 0 returns the map.
        backend: Name of the backend to use; the first that supports the map if absent.

    Raises:
        ValueError: It is no map, or the backend does not support it.
    """
    for _ in range(times):
        x = halve_once(x, backend=backend)
    return x
