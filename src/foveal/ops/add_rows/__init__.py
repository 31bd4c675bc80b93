"""Add rows to a map at some of its places, and finish all of it."""

from foveal.ops.add_rows import native, reference, spec, torch
from foveal.ops.op import Op, table

__all__ = ["add_rows"]

add_rows = Op("add_rows", spec.check, table(native.run, native.supports, torch.run, reference.run))
