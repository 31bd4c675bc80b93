"""Dense: every pixel at full resolution. The baseline is a method too.

Adapts   nothing.
Decides  nothing.
Knob     none.
Source   the network itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveal.methods.base import Prediction, Request, Segmenter, Step, Trace, check_image
from foveal.objectives.segmentation import cross_entropy

if TYPE_CHECKING:
    from foveal.tiles.memory import Memory


class Dense(Segmenter):
    """Runs an ordinary network as it is.

    Args:
        network: Module from images [N, 3, H, W] to logits [N, K, h, w].
        class_weight: Weight of every class in the loss [K].
        hardest: Share of the pixels that count in the loss.
    """

    class_weight: Tensor | None

    def __init__(self, network: nn.Module, class_weight: Tensor | None = None, hardest: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.hardest = hardest
        self.register_buffer("class_weight", class_weight, persistent=False)

    @classmethod
    def on_request(cls, network: nn.Module, request: Request) -> Dense:
        """Take the network; there is nothing to ask for."""
        return cls(network)

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, 3, H, W]; the trace says that everything was computed."""
        size = check_image(image)
        step = Step("network", torch.ones(len(image), dtype=torch.float64))
        return Prediction(self.network(image), size, Trace((step,)))

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return 1: everything is computed."""
        return 1.0

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy of the labels."""
        return {"segmentation": cross_entropy(self.network(image), target, self.class_weight, self.hardest)}
