"""Dense: the ordinary network, everywhere at full resolution; the baseline of all others.

Adapts   nothing.
Decides  nobody.
Knob     none.
Source   the network itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from foveal.methods.base import TrainableSegmenter, check_image
from foveal.methods.config import Aim, MethodConfig, MethodTraining, Resources
from foveal.methods.prediction import Prediction, Step, Trace
from foveal.objectives.segmentation import cross_entropy
from foveal.program.settings import DenseRun
from foveal.storage.given import need

if TYPE_CHECKING:
    from foveal.tiles.memory import Memory


@dataclass(frozen=True)
class DenseConfig(MethodConfig):
    """Settings of the dense network: those that all methods have."""

    @property
    def adjustable(self) -> bool:
        """Return False: everything is computed, whatever the budget."""
        return False

    @property
    def is_dense(self) -> bool:
        """Whether the image stays as it is."""
        return self.scale == 1

    def program_run(self) -> DenseRun:
        """Ask for everything at once."""
        return DenseRun()


class Dense(TrainableSegmenter):
    """Runs an ordinary network as it is.

    Args:
        network: Module from images [N, 3, H, W] to logits [N, K, h, w].
        aim: What training minimises.
    """

    Config = DenseConfig
    Training = MethodTraining
    class_weight: Tensor | None

    def __init__(self, network: nn.Module, aim: Aim | None = None) -> None:
        super().__init__()
        need(network, nn.Module, "network", "a torch.nn.Module from images to logits")
        aim = Aim() if aim is None else aim
        need(aim, Aim, "aim", "an Aim, or None")
        self.network = network
        self.hardest = aim.hardest
        self.register_buffer("class_weight", aim.class_weight, persistent=False)

    @classmethod
    def from_config(cls, network: nn.Module, config: DenseConfig, resources: Resources | None = None) -> Self:
        """Take the network; there is nothing to set."""
        return cls(network)

    @classmethod
    def for_training(cls, network: nn.Module, training: MethodTraining, aim: Aim) -> Self:
        """Train the network on labels."""
        return cls(network, aim)

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, 3, H, W]; the trace says that everything was computed."""
        size = check_image(image, self.network)
        step = Step("network", torch.ones(len(image), dtype=torch.float64))
        return Prediction(self.network(image), size, Trace((step,)))

    def decide(self, image: Tensor) -> None:
        """Return None: whole images run."""
        check_image(image, self.network)

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return 1: everything is computed."""
        return 1.0

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy of the labels."""
        return {"segmentation": cross_entropy(self.network(image), target, self.class_weight, self.hardest)}
