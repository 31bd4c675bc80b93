"""Result of a network on one image, and its cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveal.calibration.profile import Risk
from foveal.calibration.selector import Choice
from foveal.cost import Timing
from foveal.geometry.plan import SKIP
from foveal.routes import Route
from foveal.storage.labels import VOID


@dataclass(frozen=True)
class Result:
    """Result of a network on one image, and its cost.

    Attributes:
        image: [3, H, W] in 0..1.
        labels: Class per pixel [H, W], uint8; 255 where a mask left places out.
        cells: Level [Gh, Gw] that the answer comes from, per cell; None if the dense network ran.
        cell: Side of a cell [px].
        work: Share of the dense work, the decision included.
        macs: Multiply-accumulates that ran [MAC].
        dense_macs: Those of the dense network [MAC].
        timing: Wall time up to the labels [ms]; without a comparison that of one run.
        dense_timing: That of the dense network, measured in turns with it; None without a comparison.
        dense_labels: Labels of the dense network [H, W]; None without a comparison.
        method_timing: That of the method where the cost model chose the dense network; None else, and without
            a comparison.
        choice: What was chosen to run, and why.
        risk: What was tolerated, and the setting that keeps it; None if a budget or latency was given.
        estimate: Estimated class-balanced disagreement with the dense network, a share; None without a risk.
        counted: Whether MACs were counted during the one run that was timed, which makes it slower.
        scale: Share of the image's sides that it was shrunk to before anything else.
        chosen: Who chose the settings, and why; empty if the user and the defaults did.
        route: Route through a lattice that was taken; None if the method does not route, or all paths were
            open.
    """

    image: Tensor
    labels: Tensor
    cells: Tensor | None
    cell: int
    work: float
    macs: int
    dense_macs: int
    timing: Timing
    dense_timing: Timing | None = None
    dense_labels: Tensor | None = None
    method_timing: Timing | None = None
    choice: Choice = field(default_factory=Choice)
    risk: Risk | None = None
    estimate: float | None = None
    counted: bool = False
    scale: float = 1.0
    chosen: str = ""
    route: Route | None = None

    @property
    def reason(self) -> str:
        """Why the dense network ran; empty if it did not."""
        return self.choice.reason

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image [px]."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def tile(self) -> int:
        """Side of a cell of `levels` [px]."""
        return max(self.size) if self.cells is None else self.cell

    @property
    def levels(self) -> Tensor:
        """Level [Gh, Gw] that the answer comes from, per cell; one cell at level 0 for the dense network."""
        return torch.zeros(1, 1, dtype=torch.int8) if self.cells is None else self.cells

    @property
    def agreement(self) -> float | None:
        """Share of the labelled pixels with the dense network's label; None without a comparison."""
        if self.dense_labels is None:
            return None
        labelled = self.labels != VOID
        return float((self.dense_labels == self.labels)[labelled].double().mean()) if labelled.any() else None


def level_shares(levels: Tensor) -> dict[int, float]:
    """Return the share of the cells [Gh, Gw] at every level that occurs, finest first, SKIP last."""
    found = sorted(set(levels.flatten().tolist()), key=lambda level: (level == SKIP, level))
    return {level: float((levels == level).double().mean()) for level in found}
