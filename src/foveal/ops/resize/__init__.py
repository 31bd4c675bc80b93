"""Resize a map with antialiasing: every sample is a triangle-weighted mean of those it covers."""

from __future__ import annotations

from foveal.ops.op import Op, table
from foveal.ops.resize import native, reference, spec, torch

__all__ = ["resize"]

resize = Op("resize", spec.check, table(native.run, native.supports, torch.run, reference.run))
