"""Take the largest sample of every window; outside the image lies the lowest number."""

from foveal.ops.max_pool import native, reference, spec, torch
from foveal.ops.max_pool.spec import Pooling
from foveal.ops.op import Op, table

__all__ = ["Pooling", "max_pool"]

max_pool = Op("max_pool", spec.check, table(native.run, native.supports, torch.run, reference.run))
