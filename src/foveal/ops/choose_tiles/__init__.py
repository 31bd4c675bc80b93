"""Choose tiles that gain much and lie together."""

from foveal.ops.choose_tiles import native, reference, spec
from foveal.ops.op import Backend, Op, always, requirements

__all__ = ["choose_tiles"]

choose_tiles = Op(
    "choose_tiles",
    spec.check,
    (
        Backend("native", native.supports, native.run, requirements),
        Backend("reference", always, reference.run),
    ),
)
