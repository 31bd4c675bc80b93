"""Give every tile a border from its neighbours, whatever their levels."""

from foveal.ops.fetch_halo import native, reference, spec, torch
from foveal.ops.op import Op, table

__all__ = ["fetch_halo"]

fetch_halo = Op("fetch_halo", spec.check, table(native.run, native.supports, torch.run, reference.run))
