"""Calibration of an adaptive model from images without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from foveal.adaptive.engine import build_engine
from foveal.adaptive.prepared import PreparedNetwork
from foveal.adaptive.spec import Specification
from foveal.calibration.adapt import adapt
from foveal.calibration.engine import int8_scales
from foveal.calibration.latency import on_tiles
from foveal.calibration.profile import CalibrationProfile
from foveal.methods import CoarseToFineConfig

if TYPE_CHECKING:
    from foveal.adaptive.images import OneImage

SCORES = ("weighted_entropy", "regional_entropy")
"""Scores to choose from."""
Progress = Callable[[str, int, int], None]
"""Told what is done, how far it is, and the total."""


class PreparedImages(Sequence[Tensor]):
    """Images [C, H, W] as methods see them, prepared when they are read.

    Args:
        images: Images as users give them.
        prepare: Makes a batch for the network of one.
    """

    def __init__(self, images: Sequence[OneImage], prepare: Callable[[OneImage], Tensor]) -> None:
        self.images, self.prepare = images, prepare

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        return self.prepare(self.images[index])[0]


def calibrate(
    prepared: PreparedNetwork,
    spec: Specification,
    images: Sequence[Tensor],
    report: Progress | None = None,
) -> CalibrationProfile:
    """Measure how a network refines best, what that costs in agreement, and for int8 the ranges of its maps.

    Args:
        prepared: The network with its preprocessing.
        spec: What is known about it, and the precision that is wanted.
        images: Images [C, H, W] as the network sees them.
        report: Told how far it is.

    Raises:
        ValueError: The images do not fit or are too small, or there is no program in the precision.
    """
    plain = build_engine(prepared, replace(spec, precision="f32"))
    scales = int8_scales(plain, images) if spec.precision == "int8" else None
    with on_tiles(spec.name):
        found = adapt(plain.model, images, _candidates(spec), report or _silent, plain)
    return replace(found, scales=scales)


def _candidates(spec: Specification) -> list[CoarseToFineConfig]:
    """List the settings to choose from: scores, and levels up to the model's own."""
    levels = range(max(1, spec.coarse_level), 0, -1)
    return [
        CoarseToFineConfig(policy=score, tile=spec.tile, coarse_level=k) for k in levels for score in SCORES
    ]


def _silent(text: str, done: int, total: int) -> None:
    """Report nothing."""
