"""A policy network: a small CNN on a thumbnail decides which blocks get full resolution.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, sections 3.1 and 3.3, table VII.
Differs: the thumbnail is averaged, not picked; any image size; at inference blocks are ranked and the budget
is met exactly and deterministically, where the released code rounds up with random blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.geometry.plan import Plan, check_budget, grid
from foveal.policies.protocol import View

DEEPEST, WIDEST, LARGEST = 10, 1024, 4096
"""Layers, channels and pixels of a block; the paper has 4, 64 and 128."""
MEAN, DEVIATION = 0.45, 0.25
"""Of image values: the thumbnail is brought to zero mean and unit deviation, roughly."""


class PolicyNet(nn.Module):
    """Maps images [N, 3, H, W] in 0..1 to one logit per block [N, ceil(H / block), ceil(W / block)].

    The first of `depth` convolutions is 7x7 with stride 4, the others are 5x5 with stride 2. The thumbnail
    is as large as that asks for: with 4 layers and blocks of 128 px a quarter of the image, which makes 0.34
    GMAC at 1024x2048.

    Args:
        block: Side of a block [px].
        width: Channels of the hidden layers.
        depth: Number of convolutions, at least 2.

    Attributes:
        share: Its MACs as a share of the dense network's, for an image of whole blocks; known once it belongs
            to a network.

    Raises:
        ValueError: The block is no multiple of the total stride 2^(depth + 1).
    """

    def __init__(self, block: int = 128, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        fits = 2 <= depth <= DEEPEST and 1 <= width <= WIDEST and 1 <= block <= LARGEST
        if not fits or block % 2 ** (depth + 1):
            raise ValueError(
                f"a policy network of {depth} layers, width {width} and block {block} px cannot be; give 2 "
                f"to {DEEPEST} layers, a width of 1 to {WIDEST}, and a block of at most {LARGEST} px that is "
                "a multiple of 2^(layers + 1) px"
            )
        self.block, self.width, self.depth = block, width, depth
        self.share = 0.0
        self._shrink = block // 2 ** (depth + 1)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 7, 4, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 5, 2, 2))

    @property
    def config(self) -> dict[str, int]:
        """Arguments that make such a network."""
        return {"block": self.block, "width": self.width, "depth": self.depth}

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a block [MAC]: its thumbnail has 2^(depth + 1) samples on a side."""
        side, total = 2 ** (self.depth - 1), 0
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                total += side * side * layer.weight.numel()
                side //= 2
        return total

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [N, Bh, Bw] of seeing a block at full resolution, in the precision of the weights."""
        device = "cpu" if image.is_meta else image.device.type
        with torch.autocast(device, enabled=False):
            height, width = image.shape[2:]
            image = image.to(next(self.parameters()).dtype)
            image = F.pad(image, (0, -width % self.block, 0, -height % self.block), mode="replicate")
            thumbnail = F.avg_pool2d(image, self._shrink) if self._shrink > 1 else image
            logits: Tensor = self.layers((thumbnail - MEAN) / DEVIATION)
            return logits[:, 0]


@dataclass(frozen=True)
class Draw:
    """Blocks that were drawn at random for a step of training.

    Attributes:
        logits: Of seeing a block at full resolution [N, Bh, Bw].
        fine: Whether it is [N, Bh, Bw].
        plan: The plan that follows.
    """

    logits: Tensor
    fine: Tensor
    plan: Plan


class Learned(nn.Module):
    """Puts blocks at full or half resolution by the logits of a policy network.

    Args:
        net: The policy network.
        tile: Side of a tile [px]; the block holds 2x2 of them, or 4x4, ...
        budget: Share of the dense work, met exactly by rank; None for the blocks with a probability above one
            half, however many they are.

    Raises:
        ValueError: The budget is no share, or blocks do not hold 2x2, 4x4, ... tiles.
    """

    def __init__(self, net: PolicyNet, tile: int, budget: float | None = None) -> None:
        super().__init__()
        if tile < 1 or net.block % (2 * tile):
            raise ValueError(
                f"block is {net.block} px and tile {tile}; the block of a learned policy holds 2x2, 4x4, ... "
                f"tiles, give a tile such as {net.block // 2}"
            )
        self.net, self.tile = net, tile
        self.budget = None if budget is None else check_budget(budget)

    coarse_level: ClassVar[None] = None

    def cost(self, size: tuple[int, int]) -> float:
        """Return the work of the decision itself, on whole blocks, as a share of the dense work."""
        rows, columns = grid(size, self.net.block)
        return self.net.share * rows * columns * self.net.block**2 / (size[0] * size[1])

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the cheapest plan for an image of `size` [px], the decision included."""
        if self.budget is not None and self.budget >= 1:
            return float(Plan.uniform(1, size, self.tile).work)
        return self.cost(size) + float(Plan.uniform(1, size, self.tile, 1).work)

    def forward(self, view: View) -> Plan:
        """Plan within the budget, every image by itself."""
        size = view.size
        if self.budget is not None and self.budget >= 1:
            return Plan.uniform(len(view.image), size, self.tile)
        logits = self.net(view.image)
        if self.budget is None:
            return self._plan(logits > 0, size)
        spare = self._spare(size, self.budget - view.spent)
        if spare < 0:
            raise ValueError(
                f"budget is {self.budget:g} of the dense work, decision included; the cheapest plan, "
                f"everything at half resolution, takes {self.least_work(size):.3g}; raise the budget"
            )
        costs = self._costs(size).to(logits.device).flatten()
        order = logits.flatten(1).sort(dim=1, descending=True, stable=True).indices
        affordable = costs[order].cumsum(1) <= spare
        fine = torch.zeros_like(affordable).scatter(1, order, affordable)
        return self._plan(fine.view_as(logits), size)

    def draw(self, view: View) -> Draw:
        """Draw blocks by their probabilities, for a step of training."""
        logits = self.net(view.image)
        fine = torch.rand_like(logits) < logits.detach().sigmoid()
        return Draw(logits, fine, self._plan(fine, view.size))

    def _plan(self, fine: Tensor, size: tuple[int, int]) -> Plan:
        return Plan.from_blocks((~fine).to(torch.int8), self.net.block, self.tile, size)

    def _costs(self, size: tuple[int, int]) -> Tensor:
        """Count the tiles that full resolution adds to a block [Bh, Bw]."""
        cells = self.net.block // self.tile
        rows, columns = (
            (count - torch.arange(0, count, cells)).clamp(max=cells) for count in grid(size, self.tile)
        )
        coarse = (-(-rows // 2))[:, None] * -(-columns // 2)
        return rows[:, None] * columns - coarse

    def _spare(self, size: tuple[int, int], budget: float) -> float:
        """Count the tiles that may be added to everything at half resolution, the one above included."""
        least = int(Plan.uniform(1, size, self.tile, 1).tiles)
        return budget * size[0] * size[1] / self.tile**2 - least + 1
