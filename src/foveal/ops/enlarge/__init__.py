"""Enlarge tiles bilinearly by a whole factor, with samples of the neighbours, so that there are no seams."""

from foveal.ops.enlarge import native, reference, spec, torch
from foveal.ops.op import Op, table

__all__ = ["enlarge"]

enlarge = Op("enlarge", spec.check, table(native.run, native.supports, torch.run, reference.run))
