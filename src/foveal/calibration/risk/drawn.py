"""A share of the images is adapted and the others run dense; a hash of its content says which one is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveal.methods.base import AdaptiveSegmenter, WrappingMethod, check_image
from foveal.methods.prediction import Prediction, Step, Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from foveal.geometry.plan import Plan
    from foveal.tiles.memory import Memory

SAMPLED = 64
"""Rows and columns of an image that its hash reads, evenly spaced."""


@dataclass(frozen=True)
class Draw:
    """Says of an image whether it is one of the share: the same image, the same answer.

    Attributes:
        share: Share of the images.
        salt: Which hash; images fall otherwise for another one.
    """

    share: float
    salt: str

    def __call__(self, image: Tensor) -> bool:
        """Say whether an image [C, H, W] in 0..1 is one of the share."""
        return draw_number(image, self.salt) < self.share


def draw_number(image: Tensor, salt: str) -> float:
    """Return a number in [0, 1) that depends on the content of an image [C, H, W] in 0..1, as if drawn.

    It reads bytes, so the layout in memory and errors of rounding do not matter.
    """
    down, across = (max(1, side // SAMPLED) for side in image.shape[1:])
    sampled = image.detach()[:, ::down, ::across].float().mul(255).round().clamp(0, 255)
    data = sampled.to("cpu", torch.uint8).contiguous().numpy().tobytes()
    digest = hashlib.blake2b(data, digest_size=7, key=salt.encode()[:64]).digest()  # 56 bits: below 1
    return int.from_bytes(digest, "big") / (1 << 56)


class DrawnMethod(WrappingMethod):
    """Runs a method on a share of the images, and the dense network on the others.

    Args:
        method: What runs on the share.
        dense: What runs on the others.
        draw: Says which an image is.
    """

    def __init__(self, method: AdaptiveSegmenter, dense: AdaptiveSegmenter, draw: Draw) -> None:
        super().__init__()
        self.method: AdaptiveSegmenter = method
        self.whole: AdaptiveSegmenter = dense
        self.network, self.draw = method.network, draw

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, C, H, W] in 0..1; a memory is not used."""
        return self._each(image, lambda method, n: method(image[n]))

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment where cells [N, Gh, Gw] of the images are wanted."""
        return self._each(image, lambda method, n: method.masked(image[n], wanted[n]))

    def decide(self, image: Tensor) -> Plan | None:
        """Return the plan of the method; None if all images run dense."""
        return self.method.decide(image) if any(self._drawn(image)) else None

    def dense(self) -> nn.Module:
        """Return the dense network."""
        return self.method.dense()

    def least_work(self, size: tuple[int, int]) -> float:
        """Return that of the method."""
        return self.method.least_work(size)

    def remaining_gain(self, image: Tensor, prediction: Prediction) -> Tensor:
        """Return that of the method; images that ran dense left nothing."""
        return self.method.remaining_gain(image, prediction)

    def _drawn(self, image: Tensor) -> list[bool]:
        check_image(image, self.network)
        return [self.draw(one) for one in image]

    def _each(self, image: Tensor, run: Callable[[AdaptiveSegmenter, slice], Prediction]) -> Prediction:
        """Run all images together where one method has all of them, else one by one."""
        drawn = self._drawn(image)
        methods = [self.method if adapted else self.whole for adapted in drawn]
        if len(set(drawn)) == 1:
            return run(methods[0], slice(None))
        return _joined([run(method, slice(n, n + 1)) for n, method in enumerate(methods)])


def _joined(found: list[Prediction]) -> Prediction:
    """Join the answers about single images; what ran dense is at level 0 everywhere."""
    levels = [one.trace.levels for one in found]
    like = next(known for known in levels if known is not None)
    known = torch.cat([torch.zeros_like(like) if each is None else each for each in levels])
    step = Step("mixed", torch.cat([one.trace.work for one in found]))
    logits, labels = (torch.cat(x) for x in ([p.logits for p in found], [p.labels for p in found]))
    scale = next(one.trace.scale for one in found)
    return Prediction(logits, found[0].size, Trace((step,), known, scale), computed_labels=labels)
