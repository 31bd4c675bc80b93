"""Operations on maps in reduced precision: 8-bit integers and bfloat16."""

from foveal.ops.reduced.fold import Folded, fold, pack_weight, quantise_weight
from foveal.ops.reduced.spec import Format, Map, ReducedConvolution

__all__ = ["Folded", "Format", "Map", "ReducedConvolution", "fold", "pack_weight", "quantise_weight"]
