"""Points that are predicted again: a coarse answer is enlarged step by step, its most uncertain points anew.

A point's logits come from the fine map there and from the coarse answer there, through layers that are
shared by all points, and that see the coarse logits again in each of them.

Source: Kirillov et al., "PointRend: Image Segmentation as Rendering", CVPR 2020, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.decoders.maps import Maps, Score, enlarge, highest

LAYERS = 3
"""Hidden layers."""


class PointDecoder(nn.Module):
    """Predicts points from fine features and coarse logits.

    Args:
        fine: Channels of the fine map.
        classes: Logits K.
        width: Channels of the hidden layers (256 in the paper).
    """

    place = "points"

    def __init__(self, fine: int, classes: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear((width if number else fine) + classes, width) for number in range(LAYERS)
        )
        self.classify = nn.Linear(width + classes, classes)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Predict points [..., K] from fine features [..., C] and coarse logits [..., K]."""
        x = features
        for layer in self.layers:
            x = layer(torch.cat([x, logits], -1)).relu()
        found: Tensor = self.classify(torch.cat([x, logits], -1))
        return found

    def everywhere(self, maps: Maps) -> Tensor:
        """Predict every sample of the fine map [N, K, h, w]."""
        return self(*(x.movedim(1, 3) for x in (maps.fine, maps.enlarged(1)))).movedim(3, 1)

    def at(self, maps: Maps, factor: int, chosen: Tensor) -> Tensor:
        """Predict some samples of a map that is coarser than the fine one by a factor, 1 or an even number.

        Args:
            maps: Of N images.
            factor: Fine samples on the side of one of that map.
            chosen: Numbers of the samples, row after row [N, P].

        Returns:
            [N, P, K].
        """
        (height, width), columns = maps.sides(1), maps.sides(factor)[1]
        rows, across = chosen // columns * factor, chosen % columns * factor
        # Its centre lies between four fine samples: the bilinear sample is their mean.
        near = (0,) if factor == 1 else (factor // 2 - 1, factor // 2)
        found = [
            _taken(maps.fine, (rows + i).clamp(max=height - 1) * width + (across + j).clamp(max=width - 1))
            for i in near
            for j in near
        ]
        features = found[0] if len(found) == 1 else torch.stack(found).mean(0)
        return self(features, _taken(maps.enlarged(factor), chosen))

    def count(self, sides: tuple[int, int]) -> int:
        """Return the number of points of a fine map."""
        return sides[0] * sides[1]

    def stream(self, maps: Maps, count: int, score: Score, steps: int) -> Iterator[tuple[Tensor, int]]:
        """Yield the answer [N, K, h, w] at the stride of the fine map, and the points per image that it took.

        Every step doubles the answer's sides and predicts as many of its points anew as every later one. A
        step that could predict all is left to the later ones, which predict these again.

        Args:
            maps: Maps of the images.
            count: Points per image that may be predicted, in all steps together.
            score: Says which.
            steps: Last doublings after which points are predicted.
        """
        answer, left, factor = maps.logits, count, maps.ratio
        while factor > 1:
            factor //= 2
            height, width = maps.sides(factor)
            answer = enlarge(answer, 2, (height, width))
            later = factor.bit_length() - 1
            several = 0 if later >= steps else min(left // (later + 1), height * width)
            if several == 0 or (later and several == height * width):
                continue
            left -= several
            if several == height * width:
                answer = self.everywhere(maps)
                continue
            chosen = highest(score(answer, factor * maps.stride), several)
            values = self.at(maps, factor, chosen).transpose(1, 2).to(answer.dtype)
            index = chosen[:, None].expand_as(values)
            answer = answer.flatten(2).scatter(2, index, values).unflatten(2, (height, width))
        yield answer, count - left


def training_points(
    logits: Tensor, sides: tuple[float, float], count: int, oversample: float, importance: float
) -> Tensor:
    """Draw points that are uncertain more often than not.

    Args:
        logits: Coarse answer [N, K, h, w].
        sides: Height and width of the images, in samples of that answer.
        count: Points P per image.
        oversample: Candidates per point.
        importance: Share of the points that are the most uncertain candidates; others are drawn evenly.

    Returns:
        Row and column [N, P, 2], as shares of the images' sides.

    Source: section 3.2 of the paper; uncertainty is the second largest logit minus the largest.
    """
    shape = len(logits), max(count, round(oversample * count))
    candidates = torch.rand(*shape, 2, device=logits.device)
    with torch.no_grad():
        best = sampled(logits.detach().float(), candidates, sides).topk(min(2, logits.shape[1]), 2).values
    chosen = (best[:, :, -1] - best[:, :, 0]).topk(round(importance * count), 1).indices
    sure = candidates.gather(1, chosen[:, :, None].expand(-1, -1, 2))
    return torch.cat([sure, torch.rand(len(logits), count - sure.shape[1], 2, device=logits.device)], 1)


def sampled(x: Tensor, points: Tensor, sides: tuple[float, float]) -> Tensor:
    """Read a map bilinearly at points, edges repeated.

    Args:
        x: [N, C, h, w].
        points: Row and column [N, P, 2], as shares of the images' sides.
        sides: Height and width of the images, in samples of the map, which may reach beyond them.

    Returns:
        [N, P, C].
    """
    share = points.new_tensor([sides[0] / x.shape[2], sides[1] / x.shape[3]])
    grid = (2 * points * share - 1).flip(2)[:, None].to(x.dtype)
    found = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[:, :, 0].transpose(1, 2)


def _taken(x: Tensor, places: Tensor) -> Tensor:
    """Take samples of a map [N, C, h, w] by their numbers [N, P]; return [N, P, C]."""
    images = torch.arange(len(x), device=places.device)[:, None]
    return x.flatten(2).transpose(1, 2)[images, places]
