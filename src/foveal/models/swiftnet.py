"""The SwiftNet decoder: a light ladder from the coarsest map up to stride 4.

Source: Orsic et al., "In Defense of Pre-trained ImageNet Architectures for Real-time Semantic Segmentation
of Road-driving Images", CVPR 2019, sections 3 and 4 (single scale). Skips are the activated stage outputs,
as in SegBlocks. Every unit is BN, ReLU, convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SwiftNetHead(nn.Module):
    """Spatial pyramid pooling, then one upsampling unit a stage, then a 1x1 classifier.

    Args:
        channels: Channels of the encoder's maps, finest first.
        classes: Number of classes K.
        width: Channels of the decoder.
        context_width: Channels inside the pyramid (128 in the paper).
    """

    def __init__(
        self, channels: tuple[int, ...], classes: int, width: int = 128, context_width: int | None = None
    ) -> None:
        super().__init__()
        self.context = PyramidPooling(channels[-1], width, context_width or width)
        self.lateral = nn.ModuleList(Unit(c, width, 1, momentum=0.05) for c in channels[:-1])
        self.blend = nn.ModuleList(Unit(width, width, 3, momentum=0.05) for _ in channels[:-1])
        self.classify = Unit(width, classes, 1, momentum=0.05, bias=True)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return logits [N, K, h, w] at the stride of the finest map."""
        x = self.context(maps[-1])
        steps = list(zip(maps[:-1], self.lateral, self.blend, strict=True))
        for skip, lateral, blend in reversed(steps):
            x = blend(double(x, like=skip) + lateral(skip))
        return self.classify(x)


class Unit(nn.Sequential):
    """BN, ReLU and a convolution that keeps the map's size."""

    def __init__(
        self, incoming: int, outgoing: int, kernel: int, momentum: float, bias: bool = False
    ) -> None:
        super().__init__(
            nn.BatchNorm2d(incoming, momentum=momentum),
            nn.ReLU(),
            nn.Conv2d(incoming, outgoing, kernel, padding=kernel // 2, bias=bias),
        )


class PyramidPooling(nn.Module):
    """Context of the whole map from three average-pooled grids of g x round(g W / H) bins.

    It looks at the whole map at once, so an adaptive method sends it through a dense map.
    """

    def __init__(
        self, incoming: int, outgoing: int, width: int = 128, grids: tuple[int, ...] = (8, 4, 2)
    ) -> None:
        super().__init__()
        level_width = width // len(grids)
        self.grids = grids
        self.reduce = Unit(incoming, width, 1, momentum=0.005)
        self.levels = nn.ModuleList(Unit(width, level_width, 1, momentum=0.005) for _ in grids)
        self.fuse = Unit(width + len(grids) * level_width, outgoing, 1, momentum=0.005)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, outgoing, h, w]."""
        x = self.reduce(x)
        size = x.shape[-2:]
        maps = [x]
        for grid, level in zip(self.grids, self.levels, strict=True):
            bins = (grid, max(1, round(grid * size[1] / size[0])))
            pooled = level(F.adaptive_avg_pool2d(x, bins))
            maps.append(F.interpolate(pooled, size=size, mode="bilinear", align_corners=False))
        return self.fuse(torch.cat(maps, dim=1))


def double(x: Tensor, like: Tensor) -> Tensor:
    """Upsample bilinearly by exactly 2 and crop to the size of `like`.

    A factor of exactly 2, whatever the map's sides: sample positions then depend on no image size.
    """
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return x[:, :, : like.shape[2], : like.shape[3]]
