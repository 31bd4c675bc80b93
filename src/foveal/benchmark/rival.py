"""One static rival beside measurements of our own: the dense network in OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foveal.benchmark.contenders import Labeller, static_labeller
from foveal.benchmark.runtimes import Case, Choice, difference, fold_norms, packages_of, prepare
from foveal.calibration.engine import Precision

TOLERANCE = 0.01
"""Largest difference of its logits in f32, as a share of the largest, that is still the same network."""


class Rival(NamedTuple):
    """The dense network in OpenVINO, or why it is not there."""

    labeller: Labeller | None
    why_not: str


@torch.no_grad()
def openvino_rival(
    network: nn.Module,
    image: Tensor,
    folder: Path,
    precision: Precision = "f32",
    calibration: Sequence[Tensor] = (),
) -> Rival:
    """Prepare OpenVINO for a network and one size of images.

    Args:
        network: The dense network in evaluation mode.
        image: [N, C, H, W] in 0..1, contiguous.
        folder: Place for its files, kept while it runs.
        precision: Of its arithmetic.
        calibration: Images [N, C, H, W] of that size, for the ranges of int8.

    Returns:
        From images to labels [N, H, W], or nothing and why: it is not installed, cannot run the network, or
        gives other logits in f32.
    """
    choice = Choice("openvino", precision)
    absent = [name for name in packages_of([choice]) if find_spec(name) is None]
    if absent:
        return Rival(None, f"not installed: {', '.join(sorted(absent))}")
    try:
        folded = fold_norms(network)
        runtime = prepare(choice, Case(folded, image, torch.get_num_threads(), folder, calibration))
        if precision == "f32":
            apart = difference(runtime.run(runtime.lay(image)), folded(image))
            if not apart <= TOLERANCE:
                raise ValueError(f"its logits differ from PyTorch's by {apart:.2g} of the largest")
    except Exception as error:  # whatever an exporter of another project raises is a reason
        return Rival(None, " ".join(str(error).split())[:300])
    return Rival(static_labeller(runtime, image, (image.shape[2], image.shape[3])), "")
