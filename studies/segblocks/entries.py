"""Rows of an evaluation: a method that is the same for every image, or one that is watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from foveal.data.dataset import Dataset
from foveal.evaluation.evaluate import Entry, evaluate
from foveal.methods import AdaptiveSegmenter, Dense, Prediction, SegBlocks
from foveal.reporting.rows import as_json
from studies.segblocks.study import Rows

See = Callable[[Prediction, Tensor], None]
"""Called with every prediction and its labels [N, H, W]."""


def measured(network: nn.Module, data: Dataset, entries: Sequence[Entry], timed: int = 16) -> Rows:
    """Evaluate the dense network and entries; return the rows as plain values, as studies keep them."""
    return [as_json(row) for row in evaluate(Dense(network).eval(), data, entries, timed)]


def fixed(method: AdaptiveSegmenter, policy: str, budget: float, name: str = "segblocks") -> Entry:
    """Make the row of a method that looks at no labels."""
    return Entry(name, policy, budget, lambda target: method)


def watched(method: SegBlocks, policy: str, budget: float, see: See) -> Entry:
    """Make the row of a method whose predictions are seen once an image, with the labels of the image."""

    def make(target: Tensor) -> SegBlocks:
        twin = SegBlocks(method.network, method.policy).eval()

        def once(module: object, images: object, prediction: Prediction) -> None:
            handle.remove()  # counting may run an image twice
            see(prediction, target)

        handle = twin.register_forward_hook(once)
        return twin

    return Entry("segblocks", policy, budget, make)
