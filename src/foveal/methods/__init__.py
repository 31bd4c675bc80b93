"""Adaptive methods, one file each. A ninth is one file and one line in `METHODS`."""

from __future__ import annotations

from foveal.methods.dense import Dense
from foveal.methods.segblocks import SegBlocks
from foveal.methods.segmenter import Prediction, Request, Segmenter, Step, Trace

METHODS: dict[str, type[Segmenter]] = {"dense": Dense, "segblocks": SegBlocks}

__all__ = ["METHODS", "Dense", "Prediction", "Request", "SegBlocks", "Segmenter", "Step", "Trace"]
