"""Baselines of equal cost: the dense network on a reduced image, and on some frames of a video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from foveal.evaluation.tally import Entry
from foveal.geometry.motion import global_shift, shifted
from foveal.geometry.plan import Plan
from foveal.methods import AdaptiveSegmenter, MethodConfig, Prediction, Resources, Step, Trace
from foveal.methods.base import check_image
from foveal.methods.scaling import enlarge_logits, pixel_share, shrink, shrunk_size
from foveal.ops import upsample
from foveal.tiles.memory import Memory, Record
from foveal.tiles.video import VideoMemory, check_memory


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


class KeyFrames(AdaptiveSegmenter):
    """Runs a dense network on every n-th frame of a video, and gives its answer to the frames after it.

    Args:
        network: Module from images [N, 3, H, W] to logits.
        every: Frames from one that is computed to the next.
        shift: Whether the answer moves with the picture, by whole pixels, where all of it moves.

    Raises:
        ValueError: The number of frames is below 1.
    """

    uses_memory = True

    def __init__(self, network: nn.Module, every: int, shift: bool = False) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every is {every}; give a number of frames of at least 1")
        self.network, self.every, self.shift = network, every, shift

    @classmethod
    def from_config(
        cls, network: nn.Module, config: MethodConfig, resources: Resources | None = None
    ) -> KeyFrames:
        """Take the number of frames whose mean work is the budget, or next to it."""
        return cls(network, round(1 / config.budget))

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment the next frames [N, 3, H, W]; the work of all but key frames is 0."""
        size, tile = check_image(image, self.network), max(image.shape[2:])
        before = check_memory(memory, type(self).__name__, image, tile)
        age = int(before.age.max()) + 1 if before is not None else 0
        work = torch.zeros(len(image), dtype=torch.float64)
        if before is not None and age < self.every:
            after = replace(before, age=before.age + 1)
            logits = _moved(after, image) if self.shift else after.logits
            return Prediction(logits, size, Trace((Step("kept", work),)), after)
        logits = self.network(image)
        layout = Plan.uniform(len(image), size, tile).layout
        answer, name = Record("answer", logits), type(self).__name__
        new = torch.zeros(layout.owner.shape, dtype=torch.int32)
        after = VideoMemory(layout, (answer,), name, logits, image, new, {})
        return Prediction(logits, size, Trace((Step("network", work + 1),)), after)

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return 0: that of most frames."""
        return 0.0

    def decide(self, image: Tensor) -> None:
        """Return None: whole images run, or nothing does."""
        check_image(image, self.network)


def _moved(key: VideoMemory, image: Tensor) -> Tensor:
    """Return the logits of a key frame where its picture has moved to, at full resolution [N, K, H, W]."""
    grey = [x.detach().float().mean(1).cpu().numpy() for x in (key.picture, image)]
    logits = upsample(key.logits, key.size)
    found = [
        shifted(logits[n].cpu().numpy(), global_shift(grey[0][n], grey[1][n])) for n in range(len(image))
    ]
    return torch.from_numpy(np.stack(found)).to(logits)


def key_frames(network: nn.Module, work: float, shift: bool = False) -> Entry:
    """Make the row of a dense network on as many frames as a share of the work pays for.

    Args:
        network: Module from images [N, 3, H, W] to logits.
        work: Share of the work, in the mean.
        shift: Whether answers move with the picture.
    """
    method = KeyFrames(network, max(1, round(1 / work)), shift).eval()
    how = f"every {method.every}{', shifted' * shift}"
    return Entry("key_frames", how, round(1 / method.every, 4), lambda target: method)
