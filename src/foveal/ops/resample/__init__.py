"""Bring tiles to another number of samples a side, by any of PyTorch's rules of where a sample lies."""

from foveal.ops.op import Backend, Op, always
from foveal.ops.resample import reference, spec, torch
from foveal.ops.resample.spec import Resampling

__all__ = ["Resampling", "resample"]

resample = Op(
    "resample",
    spec.check,
    (Backend("torch", always, torch.run), Backend("reference", always, reference.run)),
)
