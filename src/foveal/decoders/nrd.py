"""Dynamic neural representational decoders: a small network for every patch, whose weights another one gives.

A controller reads the map at the end of the encoder and emits, for every sample of it, the weights of a
network of three layers. That one answers every sample of the patch that the coarse sample covers, from its
position in the patch and from guidance: a few channels of an early map.

Source: Zhang et al., "Dynamic Neural Representational Decoders for High-Resolution Semantic Segmentation",
NeurIPS 2021, section 3; 2 coordinates and 16 guidance channels, two hidden layers of 16.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.decoders.maps import Maps, Score, highest

GUIDES, HIDDEN, GUIDE_WIDTH = 16, 16, 48
"""Guidance channels, channels of the two hidden layers, and channels inside the guidance."""
INPUTS = GUIDES + 2


class PatchDecoder(nn.Module):
    """Answers every sample of a patch by a network of its own.

    Convolutions have no padding: borders are part of what they are given, a whole map or windows of it, so
    that both go through the same layers.

    Args:
        fine: Channels of the fine map.
        coarse: Channels of the coarse map.
        classes: Logits K.
        ratio: Samples r on the side of a patch (8 in the paper).
        width: Channels of the controller's hidden layer.
    """

    place = "patches"

    def __init__(self, fine: int, coarse: int, classes: int, ratio: int, width: int) -> None:
        super().__init__()
        self.classes, self.ratio = classes, ratio
        self.sizes = tuple(
            size for i, o in self.layers(classes) for size in (o * i, o)
        )  # weights, then biases, of layer after layer
        last = nn.Conv2d(width, sum(self.sizes), 1)
        self.controller = nn.Sequential(*_unit(coarse, width), last)
        self.guidance = nn.Sequential(*_unit(fine, GUIDE_WIDTH), nn.Conv2d(GUIDE_WIDTH, GUIDES, 1))
        self.norm = nn.BatchNorm1d(INPUTS)
        # Products of three emitted layers: large ones would drown the first steps.
        nn.init.xavier_normal_(last.weight, gain=1 / sum(self.sizes))
        nn.init.zeros_(last.get_parameter("bias"))
        steps = torch.arange(ratio) / ratio
        position = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)
        self.register_buffer("position", position, persistent=False)

    position: Tensor

    @staticmethod
    def layers(classes: int) -> tuple[tuple[int, int], ...]:
        """Return inputs and outputs of every layer of a patch's network."""
        return (INPUTS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, classes)

    def everywhere(self, maps: Maps) -> Tensor:
        """Answer all patches [N, K, h, w]."""
        rows, columns = maps.coarse.shape[2:]
        weights = self.controller(F.pad(maps.coarse, (1, 1, 1, 1))).permute(0, 2, 3, 1).flatten(0, 2)
        guides = self.guidance(_covering(maps.fine, rows * self.ratio, columns * self.ratio, 1))
        guides = guides.unflatten(3, (columns, self.ratio)).unflatten(2, (rows, self.ratio))
        values = self.decode(weights, guides.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))
        return self._joined(values.unflatten(0, (-1, rows, columns)), maps)

    def at(self, maps: Maps, chosen: Tensor) -> Tensor:
        """Answer some patches.

        Args:
            maps: Of N images.
            chosen: Numbers of the patches, row after row [N, P].

        Returns:
            [N * P, K, r, r].
        """
        rows, columns = maps.coarse.shape[2:]
        where = (
            torch.arange(len(chosen), device=chosen.device).repeat_interleave(chosen.shape[1]),
            chosen.flatten() // columns,
            chosen.flatten() % columns,
        )
        around = _windows(F.pad(maps.coarse, (1, 1, 1, 1)), 1)[where]
        fine = _covering(maps.fine, rows * self.ratio, columns * self.ratio, 1)
        weights = self.controller(around).flatten(1)
        return self.decode(weights, self.guidance(_windows(fine, self.ratio)[where]))

    def decode(self, weights: Tensor, guides: Tensor) -> Tensor:
        """Run the networks of P patches.

        Args:
            weights: Weights and biases of their layers, one after the other [P, 576 + 17 K].
            guides: Guidance [P, 16, r, r].

        Returns:
            Logits [P, K, r, r].
        """
        parts = weights.split(self.sizes, 1)
        position = self.position.to(guides.dtype).expand(len(guides), -1, -1)
        x = self.norm(torch.cat([guides.flatten(2), position], 1))
        for number, (incoming, outgoing) in enumerate(self.layers(self.classes)):
            weight, bias = parts[2 * number].view(-1, outgoing, incoming), parts[2 * number + 1]
            x = torch.baddbmm(bias[:, :, None], weight, x if number == 0 else x.relu())
        return x.view(len(guides), self.classes, self.ratio, self.ratio)

    def count(self, sides: tuple[int, int]) -> int:
        """Return the number of patches of a fine map."""
        return -(-sides[0] // self.ratio) * -(-sides[1] // self.ratio)

    def stream(self, maps: Maps, count: int, score: Score, steps: int) -> Iterator[tuple[Tensor, int]]:
        """Yield the answer [N, K, h, w], and the patches per image that were computed, all at once.

        Args:
            maps: Maps of the images.
            count: Patches per image that may be computed.
            score: Says which.
            steps: Not used: patches are computed once.
        """
        total = self.count(maps.sides(1))
        if count >= total:
            yield self.everywhere(maps), total
            return
        answer = maps.enlarged(1)
        if count:
            chosen = highest(score(answer, self.ratio * maps.stride), count)
            rows, columns = maps.coarse.shape[2:]
            whole = _covering(answer, rows * self.ratio, columns * self.ratio, 0)
            whole = whole.unflatten(3, (columns, self.ratio)).unflatten(2, (rows, self.ratio))
            blocks = whole.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
            values = self.at(maps, chosen).unflatten(0, chosen.shape).to(blocks.dtype)
            index = chosen[:, :, None, None, None].expand_as(values)
            answer = self._joined(blocks.scatter(1, index, values).unflatten(1, (rows, columns)), maps)
        yield answer, count

    def _joined(self, patches: Tensor, maps: Maps) -> Tensor:
        """Lay patches [N, hc, wc, K, r, r] side by side [N, K, h, w]."""
        height, width = maps.sides(1)
        whole = patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return whole[:, :, :height, :width]


def _unit(incoming: int, outgoing: int) -> list[nn.Module]:
    return [nn.Conv2d(incoming, outgoing, 3, bias=False), nn.BatchNorm2d(outgoing), nn.ReLU()]


def _covering(x: Tensor, height: int, width: int, border: int) -> Tensor:
    """Surround a map with zeros: a border, and below and to the right what patches hang over."""
    below, right = height - x.shape[2] + border, width - x.shape[3] + border
    return F.pad(x, (border, right, border, below))


def _windows(x: Tensor, side: int) -> Tensor:
    """See a map as windows with a border of one sample [N, h, w, C, side + 2, side + 2]."""
    return x.unfold(2, side + 2, side).unfold(3, side + 2, side).permute(0, 2, 3, 1, 4, 5)
