"""What changed in a video: scores that go by the last frames, and where a new scene begins."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.geometry.plan import grid
from foveal.policies.budgeted import Score, per_cell
from foveal.policies.controls import chance
from foveal.policies.protocol import View
from foveal.policies.uncertainty import weighted_entropy

PATCH = 4
"""Side of the squares that pixels are averaged over before they are compared: noise is not change [px]."""
SCENE = (12, 16)
"""Samples of the thumbnail that tells scenes apart."""
ALIKE = 0.5
"""Least correlation of two thumbnails of one scene."""
APART = 0.06
"""Least mean absolute difference of two thumbnails of different scenes [0..1]: what moves is a small part."""
CERTAIN = 0.1
"""Uncertainty that every block has beside its own, in means of the frame."""
FLAT = 1e-3
"""Deviation below which a thumbnail has no structure to compare [0..1]."""


def differs(image: Tensor, picture: Tensor, cell: int) -> Tensor:
    """Say which cells hold any pixel that differs [N, Gh, Gw], bool, on the CPU.

    Args:
        image: Frames [N, C, H, W].
        picture: What they are compared with [N, C, H, W].
        cell: Side of a cell [px].
    """
    pixels = (image != picture).any(1, keepdim=True).float()
    return F.max_pool2d(pixels, cell, ceil_mode=True)[:, 0].cpu() > 0


def change(image: Tensor, picture: Tensor, cell: int) -> Tensor:
    """Return the largest change within every cell [N, Gh, Gw], on the CPU.

    It is the absolute difference of means over 4x4 px, the largest of the channels: small things that move
    count in full, and noise of single pixels hardly.
    """
    size = image.shape[2], image.shape[3]
    difference = (image - picture).float()
    rim = (0, -size[1] % PATCH, 0, -size[0] % PATCH)
    coarse = F.avg_pool2d(F.pad(difference, rim, mode="replicate"), PATCH).abs().amax(1)
    rows, columns = grid(size, cell)
    found = torch.zeros(len(image), rows, columns)
    places = [torch.arange(n) * PATCH // cell if cell >= PATCH else torch.arange(n) for n in coarse.shape[1:]]
    if cell < PATCH:
        fine = coarse.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, : size[0], : size[1]]
        return F.max_pool2d(fine[:, None], cell, ceil_mode=True)[:, 0].cpu()
    place = (places[0][:, None] * columns + places[1]).flatten().expand(len(image), -1)
    return found.flatten(1).scatter_reduce(1, place, coarse.cpu().flatten(1), "amax").view_as(found)


def is_new_scene(image: Tensor, picture: Tensor) -> Tensor:
    """Say which frames show another scene than the picture [N], bool: thumbnails neither correlate nor agree.

    Where one of them has no structure, a change of its brightness does not begin a scene.
    """
    small = [
        F.adaptive_avg_pool2d(x.float().mean(1, keepdim=True), SCENE).flatten(1) for x in (image, picture)
    ]
    ours, theirs = (x - x.mean(1, keepdim=True) for x in small)
    norms = ours.norm(dim=1), theirs.norm(dim=1)
    plain = torch.minimum(*norms) < FLAT * (SCENE[0] * SCENE[1]) ** 0.5
    alike = (ours * theirs).sum(1) / (norms[0] * norms[1]).clamp(min=1e-12)
    apart = (small[0] - small[1]).abs().mean(1) > APART
    return ((alike < ALIKE) & apart & ~plain).cpu()


def difference(view: View) -> Tensor:
    """Score by the mean absolute difference from the pixels that were last computed."""
    if view.previous is None:
        raise ValueError(
            "a score by difference needs the last frame; give it to a method that keeps a memory"
        )
    return (view.image - view.previous).abs().mean(1)


def staleness(view: View, age: Tensor, block: int) -> Tensor:
    """Return how much a new answer of every block is likely to tell, as a logarithm [N, Bh, Bw], on the CPU.

    It is the root of the change of the pixels, times the uncertainty of the answer, both in means of the
    frame, times the age: what differs where nothing is uncertain tells little, and nothing is left for good.

    Args:
        view: Frames, the pixels that were last computed, and the last answer.
        age: Frames since every block was computed, the next one counted [N, Bh, Bw].
        block: Side of a block [px].
    """
    changed, uncertain = (
        per_cell(density, view.size, block).cpu().float()
        for density in (difference(view), weighted_entropy(view))
    )
    changed, uncertain = (x / x.mean((1, 2), keepdim=True).clamp(min=1e-12) for x in (changed, uncertain))
    return changed.clamp(min=1e-6).log() / 2 + (uncertain + CERTAIN).log() + age.clamp(min=1).log()


BLOCK_SCORES: dict[str, Score] = {"difference": difference, "random": chance}
"""What decides without learning which blocks are computed, beside the uncertainty of the last answer."""
