"""Put tiles of all levels together into one dense map."""

from foveal.ops.compose_tiles import native, reference, spec, torch
from foveal.ops.op import Op, table

__all__ = ["compose_tiles"]

compose_tiles = Op("compose_tiles", spec.check, table(native.run, native.supports, torch.run, reference.run))
