"""Scores that were learned: how much a cell gains from a closer look, from doubt or from a thumbnail.

What they learn is the caller's choice: disagreement with the dense network, which needs no labels, or the
loss that a closer look saves, which does. Both give the gain per pixel as the other scores do, never below 0.

Source: this project. `ThumbnailGain` is in the place of the policy network of Verelst and Tuytelaars,
"SegBlocks", ECCV workshops 2020, but regresses the gain instead of being rewarded for the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from foveal.geometry.plan import grid
from foveal.policies.budgeted import per_cell
from foveal.policies.protocol import View
from foveal.policies.uncertainty import entropy, margin, weighted_entropy

DOUBTS = 4
"""Maps of doubt among the features of a cell."""
AROUND = (3, 5)
"""Sides of the squares of cells that doubt is averaged over, besides the cell itself."""
OTHERS = DOUBTS * (1 + len(AROUND)) + 1
"""Features of a cell besides the probabilities of the classes."""
PARTS = 4
"""Samples of the thumbnail on a cell's side."""
RATE = 1e-2
"""First step size of Adam."""


class BenefitHead(nn.Module):
    """A score from the doubt of the coarse answer: a small network that sees one cell and its surroundings.

    Its weights are frozen: a score is no part of what a method trains.

    Args:
        features: Number of features of a cell, 13 more than the network has classes.
        tile: Side of a cell [px].
        hidden: Width of the hidden layer.

    Attributes:
        config: The arguments, to make it again before its state is loaded.
    """

    centre: Tensor
    spread: Tensor
    scale: Tensor

    def __init__(self, features: int, tile: int = 32, hidden: int = 32) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"features": features, "tile": tile, "hidden": hidden}
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.register_buffer("scale", torch.ones(()))
        self.requires_grad_(False)

    def forward(self, view: View) -> Tensor:
        """Return the gain per pixel [N, h, w].

        Raises:
            ValueError: The view has no logits, or those of another number of classes.
        """
        tile, features = self.config["tile"], self.config["features"]
        cells = cell_features(view, tile)
        if cells.shape[1] != features:
            classes = torch.as_tensor(view.logits).shape[1]
            raise ValueError(
                f"the benefit head was fitted to {features - OTHERS} classes and the logits have {classes}; "
                "use it with the network that it was fitted for, or fit another one"
            )
        return _per_pixel(self.gain(cells.movedim(1, -1)), view.size, tile)

    def gain(self, cells: Tensor) -> Tensor:
        """Return the gain per pixel [...] of cells with features [..., F]."""
        return self.scale * F.softplus(self.layers((cells - self.centre) / self.spread)).squeeze(-1)


class ThumbnailGain(nn.Module):
    """A score from the image alone: a small network on a thumbnail, so that no pass has to come before.

    The thumbnail has 4 x 4 samples a cell, each the mean of the image over it; two convolutions of stride 2
    bring it to one sample a cell, two more look around. A fourth channel says how far down a sample lies.
    Its weights are frozen, as those of `BenefitHead`.

    Args:
        tile: Side of a cell [px], a multiple of 4.
        steps: Number of steps from one level to the next finer that get a gain of their own.
        width: Channels of the convolutions.

    Attributes:
        config: The arguments, to make it again before its state is loaded.

    Raises:
        ValueError: The tile is no multiple of 4, or there is no step.
    """

    scale: Tensor

    def __init__(self, tile: int = 32, steps: int = 2, width: int = 32) -> None:
        super().__init__()
        if tile < PARTS or tile % PARTS or steps < 1:
            raise ValueError(
                f"tile is {tile} px and steps {steps}; give a tile that is a multiple of {PARTS} px and at "
                "least 1 step"
            )
        self.config: dict[str, Any] = {"tile": tile, "steps": steps, "width": width}
        self.layers = nn.Sequential(
            *(nn.Conv2d(4, width, 4, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU()),
            nn.Conv2d(width, steps, 1),
        )
        self.register_buffer("scale", torch.ones(steps))
        self.requires_grad_(False)

    def forward(self, view: View) -> tuple[Tensor, ...]:
        """Return the gain per pixel [N, h, w] of every step, finest first."""
        gain = self.gain(self.thumbnail(view.image))
        return tuple(_per_pixel(step, view.size, self.config["tile"]) for step in gain.unbind(1))

    def thumbnail(self, image: Tensor) -> Tensor:
        """Reduce images [N, 3, H, W] in 0..1 to [N, 4, 4 Gh, 4 Gw]; samples outside the image are 0."""
        tile = self.config["tile"]
        rows, columns = (PARTS * cells for cells in grid((image.shape[2], image.shape[3]), tile))
        small = F.avg_pool2d(image, tile // PARTS, ceil_mode=True, count_include_pad=False) - 0.5
        down = (torch.arange(small.shape[2], device=image.device) + 0.5) * (tile // PARTS) / image.shape[2]
        small = torch.cat([small, (down - 0.5).view(1, 1, -1, 1).expand_as(small[:, :1])], 1)
        return F.pad(small, (0, columns - small.shape[3], 0, rows - small.shape[2]))

    def gain(self, thumbnail: Tensor) -> Tensor:
        """Return the gain per pixel [N, steps, Gh, Gw] of thumbnails."""
        return self.scale.view(-1, 1, 1) * F.softplus(self.layers(thumbnail))


def cell_features(view: View, tile: int) -> Tensor:
    """What `BenefitHead` sees of every cell: [N, F, Gh, Gw] with F = K + 13.

    Means over the cell of entropy, margin, the largest probability and the class-weighted entropy; the same
    over 3 x 3 and 5 x 5 cells; the probabilities of the K classes; how far down the cell lies, in 0..1.

    Args:
        view: Images with the logits of a coarse pass [N, K, h, w].
        tile: Side of a cell [px].

    Raises:
        ValueError: The view has no logits.
    """
    doubts = torch.stack([entropy(view), margin(view), weighted_entropy(view)], 1)
    probability = torch.as_tensor(view.logits).float().softmax(1)
    maps = torch.cat([doubts, probability.amax(1, keepdim=True), probability], 1)
    cells = cell_means(maps.flatten(0, 1), view.size, tile).unflatten(0, maps.shape[:2])
    around = [F.avg_pool2d(cells[:, :DOUBTS], side, 1, side // 2, count_include_pad=False) for side in AROUND]
    rows = cells.shape[2]
    down = ((torch.arange(rows, device=cells.device) + 0.5) / rows).view(1, 1, -1, 1)
    return torch.cat([cells, *around, down.expand_as(cells[:, :1])], 1)


def cell_means(density: Tensor, size: tuple[int, int], tile: int) -> Tensor:
    """Average a map [N, h, w], at a stride as for `per_cell`, over what of a cell lies in the image."""
    return per_cell(density, size, tile) / per_cell(torch.ones_like(density[:1]), size, tile)


def fit_benefit(cells: Tensor, gains: Tensor, tile: int = 32, seed: int = 0, steps: int = 300) -> BenefitHead:
    """Fit a score to cells whose gain is known, by least squares on all of them at once.

    Args:
        cells: Features [M, F], as `cell_features` gives them.
        gains: Gain per pixel [M].
        tile: Side of a cell [px].
        seed: Of the first weights.
        steps: Steps of Adam.

    Raises:
        ValueError: Shapes do not fit together, there is no cell, or a number is not finite.
    """
    if cells.ndim != 2 or not len(cells) or gains.shape != cells.shape[:1]:
        raise ValueError(
            f"cells are {tuple(cells.shape)} and gains {tuple(gains.shape)}; give [M, F] and [M] of at least "
            "one cell"
        )
    with _trainable(seed):
        cells, gains = _finite(cells), _finite(gains)
        head = BenefitHead(cells.shape[1], tile).to(cells.device)
        spread = cells.std(0, correction=0)
        head.centre.copy_(cells.mean(0))
        head.spread.copy_(torch.where(spread > 1e-6, spread, 1.0))
        head.scale.copy_(_mean_gain(gains))
        _descend(head, lambda: ((head.gain(cells) - gains) / head.scale).square().mean(), steps)
    return head.eval()


def fit_thumbnail(
    examples: Iterable[tuple[Tensor, Tensor]], tile: int = 32, seed: int = 0, steps: int = 600, batch: int = 8
) -> ThumbnailGain:
    """Fit a score to images whose gain is known; only their thumbnails are kept in memory.

    Images of one size are drawn into batches together, half of the batches mirrored.

    Args:
        examples: Images [N, 3, H, W] in 0..1, each with its gain per pixel [N, S, Gh, Gw] for every cell and
            step, finest first; `cell_means` makes them.
        tile: Side of a cell [px].
        seed: Of the first weights and the batches.
        steps: Steps of Adam.
        batch: Images of a step.

    Raises:
        ValueError: There is no example, shapes do not fit together, or a number is not finite.
    """
    with _trainable(seed):
        reducer = ThumbnailGain(tile)
    groups = _grouped(examples, reducer)  # with the caller's random numbers
    with _trainable(seed):
        head = ThumbnailGain(tile, groups[0][1].shape[1]).to(groups[0][0].device)
        head.scale.copy_(_mean_gain(torch.cat([gains.movedim(1, 3).flatten(0, 2) for _, gains in groups])))
        draw = Generator().manual_seed(seed)

        def loss() -> Tensor:
            small, gains = _batch(groups, batch, draw)
            return ((head.gain(small) - gains) / head.scale.view(-1, 1, 1)).square().mean()

        _descend(head, loss, steps)
    return head.eval()


def _grouped(examples: Iterable[tuple[Tensor, Tensor]], head: ThumbnailGain) -> list[tuple[Tensor, Tensor]]:
    """Reduce images to thumbnails and join those of one size with their gains."""
    groups: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
    for image, gains in examples:
        images, rows, columns = len(image), *grid((image.shape[2], image.shape[3]), head.config["tile"])
        if gains.ndim != 4 or (gains.shape[0], *gains.shape[2:]) != (images, rows, columns):
            raise ValueError(
                f"gains are {tuple(gains.shape)} for images {tuple(image.shape)}; give [{images}, steps, "
                f"{rows}, {columns}], one for every cell of {head.config['tile']} px"
            )
        small = head.thumbnail(_finite(image))
        groups.setdefault(gains.shape[1:], []).append((small, _finite(gains)))
    if len({shape[0] for shape in groups}) != 1:
        raise ValueError(
            f"the examples have gains for {sorted({shape[0] for shape in groups})} steps; give at least one "
            "example, and the same number of steps for all"
        )
    return [(torch.cat([x for x, _ in group]), torch.cat([y for _, y in group])) for group in groups.values()]


def _batch(groups: list[tuple[Tensor, Tensor]], size: int, draw: Generator) -> tuple[Tensor, Tensor]:
    """Draw thumbnails of one size and their gains, mirrored every other time."""
    sizes = torch.tensor([float(len(gains)) for _, gains in groups])
    small, gains = groups[int(sizes.multinomial(1, generator=draw))]
    chosen = torch.randperm(len(gains), generator=draw)[:size].to(gains.device)
    sides = [3] if bool(torch.randint(2, (), generator=draw)) else []
    return small[chosen].flip(sides), gains[chosen].flip(sides)


def _descend(head: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    """Make a loss small with Adam, the step size falling to 0, and freeze the head again."""
    head.requires_grad_(True)
    optimiser = torch.optim.Adam(head.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        schedule.step()
    head.requires_grad_(False)


@contextmanager
def _trainable(seed: int) -> Iterator[None]:
    """Allow gradients, whatever the caller forbids, and leave the caller's random numbers alone."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.random.default_generator.manual_seed(seed)
        yield


def _mean_gain(gains: Tensor) -> Tensor:
    """Mean over the cells [M, ...] of what is gained, above 0 so that it can divide."""
    return gains.clamp(min=0).mean(0).clamp(min=1e-8)


def _finite(x: Tensor) -> Tensor:
    """Copy numbers to train on, in single precision; refuse those that are none."""
    wrong = int((~x.isfinite()).sum())
    if wrong:
        raise ValueError(f"{wrong} of {x.numel()} numbers are not finite; leave them out")
    return x.detach().float().clone()


def _per_pixel(cells: Tensor, size: tuple[int, int], tile: int) -> Tensor:
    """Spread gains per pixel [N, Gh, Gw] of cells over samples at a power of two, as scores must have."""
    stride = tile & -tile
    spread = cells.repeat_interleave(tile // stride, 1).repeat_interleave(tile // stride, 2)
    return spread[:, : -(-size[0] // stride), : -(-size[1] // stride)]
