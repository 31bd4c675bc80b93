"""The few operations that know where tiles lie. Everything else is PyTorch on a batch of tiles."""

from foveal.kernels.autotune import tuning
from foveal.ops.add_rows import add_rows
from foveal.ops.choose_tiles import choose_tiles
from foveal.ops.classify import classify, upsample
from foveal.ops.compose_tiles import compose_tiles
from foveal.ops.convolve import Convolution, Prologue, convolve, convolved
from foveal.ops.convolve_patches import convolve_patches
from foveal.ops.cut_tiles import cut_tiles
from foveal.ops.enlarge import enlarge
from foveal.ops.fetch_halo import fetch_halo
from foveal.ops.halve import halve
from foveal.ops.max_pool import Pooling, max_pool
from foveal.ops.resample import Resampling, resample
from foveal.ops.resize import resize

__all__ = [
    "Convolution",
    "Pooling",
    "Prologue",
    "Resampling",
    "add_rows",
    "choose_tiles",
    "classify",
    "compose_tiles",
    "convolve",
    "convolve_patches",
    "convolved",
    "cut_tiles",
    "enlarge",
    "fetch_halo",
    "halve",
    "max_pool",
    "resample",
    "resize",
    "tuning",
    "upsample",
]
