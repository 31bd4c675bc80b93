"""The dense network on a reduced image: the baseline of adaptive methods at equal cost."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveal.evaluation.evaluate import Entry
from foveal.methods import AdaptiveSegmenter, MethodConfig, Prediction, Resources, Step, Trace
from foveal.methods.base import check_image
from foveal.methods.scaling import enlarge_logits, pixel_share, shrink, shrunk_size


class Reduced(AdaptiveSegmenter):
    """Runs a dense network on the image reduced by a factor.

    The paper trains a network of its own for every size; ours is the same network for all.

    Args:
        network: Module from images [N, 3, H, W] to logits.
        factor: Side of the reduced image as a share of the image's, above 0 and at most 1.

    Raises:
        ValueError: The factor is no such share.
    """

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        if not 0 < factor <= 1:
            raise ValueError(f"factor is {factor:g}; give a share of the side above 0 and at most 1")
        self.network, self.factor = network, factor

    @classmethod
    def from_config(
        cls, network: nn.Module, config: MethodConfig, resources: Resources | None = None
    ) -> Reduced:
        """Take the factor that makes the budget."""
        return cls(network, config.budget**0.5)

    def forward(self, image: Tensor, memory: object = None) -> Prediction:
        """Segment images [N, 3, H, W]; the work is the share of the pixels that are left."""
        size = check_image(image, self.network)
        small = shrink(image, shrunk_size(size, self.factor))
        logits = self.network(small.contiguous(memory_format=torch.channels_last))
        work = torch.full((len(image),), pixel_share(size, self.factor), dtype=torch.float64)
        return Prediction(enlarge_logits(logits, size), size, Trace((Step("reduced", work),)))

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the square of the factor."""
        return self.factor**2

    def decide(self, image: Tensor) -> None:
        """Return None: whole images run, reduced."""
        check_image(image, self.network)


def static(network: nn.Module, work: float) -> Entry:
    """Make the row of the network on images reduced to a share of the pixels."""
    method = Reduced(network, work**0.5).eval()
    return Entry("static", f"reduced to {method.factor:.2f}", round(work, 4), lambda target: method)
