"""Entries of an evaluation: a method that is the same for every image, or one that is watched."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from foveal.evaluation.tally import Entry
from foveal.methods import AdaptiveSegmenter, Prediction, SegBlocks

See = Callable[[Prediction, Tensor], None]
"""Called with every prediction and its labels [N, H, W]."""


def fixed(method: AdaptiveSegmenter, policy: str, budget: float, name: str = "segblocks") -> Entry:
    """Make the entry of a method that looks at no labels."""
    return Entry(name, policy, budget, lambda target: method)


def watched(method: SegBlocks, policy: str, budget: float, see: See) -> Entry:
    """Make the entry of a method whose predictions are seen once an image, with the labels of the image."""

    def make(target: Tensor) -> SegBlocks:
        twin = SegBlocks(method.network, method.policy).eval()

        def once(module: object, images: object, prediction: Prediction) -> None:
            handle.remove()  # counting may run an image twice
            see(prediction, target)

        handle = twin.register_forward_hook(once)
        return twin

    return Entry("segblocks", policy, budget, make)
