"""Adaptive methods, one file each. A ninth is one file and one line in `METHODS`."""

from __future__ import annotations

from foveal.methods.base import Prediction, Request, Segmenter, Step, Trace
from foveal.methods.coarse_to_fine import CoarseToFine
from foveal.methods.dense import Dense
from foveal.methods.segblocks import SegBlocks

METHODS: dict[str, type[Segmenter]] = {"dense": Dense, "segblocks": SegBlocks, "coarse_to_fine": CoarseToFine}

__all__ = [
    "METHODS",
    "CoarseToFine",
    "Dense",
    "Prediction",
    "Request",
    "SegBlocks",
    "Segmenter",
    "Step",
    "Trace",
]
