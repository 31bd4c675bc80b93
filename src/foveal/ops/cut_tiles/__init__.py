"""Cut a dense map into tiles: every tile holds the mean of the map over its samples."""

from foveal.ops.cut_tiles import native, reference, spec, torch
from foveal.ops.op import Op, table

__all__ = ["cut_tiles"]

cut_tiles = Op("cut_tiles", spec.check, table(native.run, native.supports, torch.run, reference.run))
