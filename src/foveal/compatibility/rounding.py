"""Whether rounding explains a difference: the same comparison in double precision."""

from __future__ import annotations

import copy

from torch import Tensor, nn

EXACT = 1e-8
"""Largest difference in double precision, relative to the largest value, of what is equal but for rounding.

Rounding shrinks by 2^29 from single to double precision: a network that loses all of its 24 bits there keeps
29 here. What a wrong rule makes of an image stays as it is.
"""
ALIKE = 30
"""How much more one way to add the same terms errs than another: ten times by Winograd's algorithm (Lavin and
Gray 2016), and three times for the largest error of one image."""


def in_double(network: nn.Module) -> nn.Module:
    """Return a copy of a network in double precision."""
    return copy.deepcopy(network).double()


def rounding(dense: Tensor, dense_double: Tensor, tiles_double: Tensor) -> float:
    """Return how large a difference from the dense answer rounding explains.

    Args:
        dense: The dense answer in single precision.
        dense_double: The same in double precision.
        tiles_double: That of tiles in double precision.

    Returns:
        A multiple of the dense network's own error; 0 if tiles differ in double precision too.
    """
    if apart(tiles_double, dense_double) > EXACT * float(dense_double.abs().max()):
        return 0.0
    return ALIKE * apart(dense.double(), dense_double)


def apart(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two maps; infinity if they have other shapes."""
    return float((a - b).abs().max()) if a.shape == b.shape else float("inf")
