"""Convolve small patches, every sample of which is a row of a table: windows at listed places of a map."""

from foveal.ops.convolve_patches import native, reference, spec, torch
from foveal.ops.op import Op, table

__all__ = ["convolve_patches"]

convolve_patches = Op(
    "convolve_patches", spec.check, table(native.run, native.supports, torch.run, reference.run)
)
