"""How much of what a refined tile gains depends on whether its neighbours are refined too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.methods import CoarseToFine, CoarseToFineConfig
from foveal.policies import View
from foveal.policies.budgeted import Score

LEAST = 0.05
"""Smallest share that is believed: of less, a score would say little about single tiles."""
EDGE = 8
"""Patches of noise along the longer side of an image: refined tiles are alone, in rows and in groups."""


def noise(seed: int) -> Score:
    """Return a score that is high in patches of many sizes, whatever the image shows."""

    def score(view: View) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        count = len(view.image)
        maps = [torch.rand(count, 1, EDGE << k, EDGE << k, generator=draw) for k in range(3)]
        mixed = [F.interpolate(m, view.size, mode="bilinear")[:, 0].pow(2) for m in maps]
        return torch.stack(mixed).sum(0)

    return score


class Neighbourhood:
    """Sums over refined tiles: what they had to gain, what they gained, and how many neighbours were, too."""

    def __init__(self) -> None:
        self.moments = torch.zeros(2, 2, dtype=torch.float64)
        self.products = torch.zeros(2, dtype=torch.float64)

    def add(self, before: Tensor, after: Tensor, refined: Tensor) -> None:
        """Count the tiles of one image.

        Args:
            before: What was wrong in a tile in the coarse answer [rows, columns].
            after: What is wrong after tiles were refined [rows, columns].
            refined: Which tiles were [rows, columns], bool.
        """
        around = torch.ones(1, 1, 3, 3, dtype=torch.float64)
        around[..., 1, 1] = 0
        ones = torch.ones_like(before)
        near, known = (F.conv2d(x.double()[None, None], around, padding=1)[0, 0] for x in (refined, ones))
        share, mask = near / known.clamp(min=1), refined & (before > 0)
        wrong, gone = before[mask], (before - after)[mask]
        columns = torch.stack([wrong, wrong * share[mask]])
        # Weighted by 1 / wrong: the errors of a count grow like its root.
        self.moments += (columns / wrong) @ columns.T
        self.products += (columns / wrong) @ gone

    @property
    def isolated_gain(self) -> float | None:
        """Share of its gain that a tile has among coarse ones, of that among refined ones; None if unknown.

        Least squares of gone = wrong (p + q share): the answer is p / (p + q).
        """
        if float(torch.linalg.det(self.moments)) < 1e-9:
            return None
        alone, more = torch.linalg.solve(self.moments, self.products).tolist()
        if alone + more <= 0:
            return None
        return round(min(1.0, max(LEAST, alone / (alone + more))), 3)


def last_step(config: CoarseToFineConfig) -> CoarseToFineConfig:
    """Return settings whose only refinement is the last one of these, in which the choice is compact."""
    level = config.coarse_level if config.schedule == "direct" else min(1, config.coarse_level)
    return replace(config, coarse_level=level, schedule="direct")


def observe(
    method: CoarseToFine, image: Tensor, wrong: Callable[[Tensor], Tensor], into: Neighbourhood
) -> None:
    """Refine an image [1, C, H, W] to full resolution, as the method's score says, and count what it changed.

    Args:
        method: It goes from its first pass to full resolution at once.
        image: The image.
        wrong: Returns the disagreement with the dense network per cell [Gh, Gw] of an answer's logits.
        into: Where it is counted.
    """
    answers = list(method.stream(image))
    levels = answers[-1].trace.levels
    if len(answers) == 2 and levels is not None:
        before, after = (wrong(answer.logits).double().cpu() for answer in answers)
        into.add(before, after, levels[0] == 0)
