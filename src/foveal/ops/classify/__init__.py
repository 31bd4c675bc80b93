"""Name the class of every pixel: enlarge the logits to the image and take the largest."""

from foveal.ops.classify import native, reference, spec, torch
from foveal.ops.classify.spec import upsample
from foveal.ops.op import Op, table

__all__ = ["classify", "upsample"]

classify = Op("classify", spec.check, table(native.run, native.supports, torch.run, reference.run))
