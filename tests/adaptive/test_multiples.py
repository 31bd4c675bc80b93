"""Networks that are themselves on tiles only where strides divide the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import foveal
from foreign import Block, lively, picture


class Enlarging(nn.Module):
    """Enlarges by a whole factor: what it says of a ragged image is larger than the image."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.head = nn.Sequential(Block(3, 8, 2), Block(8, 8, 2)), nn.Conv2d(8, 4, 1)
        self.up = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.up(self.head(self.down(image)))


def test_a_network_that_wants_multiples_is_tried_on_such_images() -> None:
    net = lively(Enlarging())
    model = foveal.adapt(net)
    assert model.spec.shape.multiple == 4
    ragged, round_ = picture(size=(131, 166)), picture(size=(128, 160))
    for image in (ragged, round_):
        assert model(image, budget=0.4).labels.shape[1:] == image.shape[2:]
    with torch.no_grad():
        assert torch.equal(model(round_, budget=1.0).labels, net(round_).argmax(1).byte())


def test_what_the_preprocessing_says_is_kept() -> None:
    model = foveal.adapt(lively(Enlarging()), preprocess=foveal.Preprocess(multiple=8))
    assert model.spec.shape.multiple == 8
