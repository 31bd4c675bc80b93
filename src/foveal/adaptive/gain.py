"""What a network gains by a method: the MACs that it takes at a budget, and the time, where it is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from foveal.adaptive.adapt import adapt
from foveal.adaptive.request import Answerer, Request
from foveal.calibration.latency import covers, picture, stored
from foveal.compatibility import NetworkReport
from foveal.methods.padding import device_of

SIDE = 512
"""Side of the image that is counted on, at least [px]."""


@dataclass(frozen=True)
class Gain:
    """What a network takes with a method at a budget.

    Attributes:
        method: Name of the method.
        size: Height and width of the image [px].
        budget: What was asked for, as a share of the dense MACs.
        macs: What it takes, the decision included; None if the budget is refused.
        refused: Why it is refused, and which budgets are kept; empty if it is not.
        ms: Time that the cost model of this machine predicts [ms]; None if nothing was measured.
        dense_ms: The same for the dense network.
    """

    method: str
    size: tuple[int, int]
    budget: float
    macs: float | None = None
    refused: str = ""
    ms: float | None = None
    dense_ms: float | None = None

    @property
    def lines(self) -> list[str]:
        """Say it in sentences."""
        where = f"{self.method} at {self.size[0]}x{self.size[1]} px"
        if self.macs is None:
            return [f"{where}: {self.refused}"]
        said = f"{where}: {self.macs:.3f} of the dense MACs at budget {self.budget:g}, the decision included"
        if self.ms is None or self.dense_ms is None:
            return [said, "no times are known on this machine; foveal calibrate measures them"]
        gain = self.dense_ms - self.ms
        told = f"{gain:.1f} ms less than" if gain > 0 else "no less than"
        return [said, f"predicted {self.ms:.1f} ms, {told} {self.dense_ms:.1f} ms of the dense network"]


@torch.no_grad()
def find_gain(
    network: nn.Module, report: NetworkReport, method: str, size: tuple[int, int] = (SIDE, SIDE)
) -> Gain:
    """Adapt a network as its report says, run it at the budget, and count.

    Args:
        network: The network; it is left as it is.
        report: What `check` found; it runs on tiles.
        method: Name in `foveal.METHODS`.
        size: Height and width of the image [px]; sides below 512 px are enlarged to that.

    Raises:
        ValueError: There is no such method, or the network cannot be adapted with it.
    """
    model = adapt(network, method=method, dense_modules=report.whole_map_modules, tile=report.tile)
    sides = max(size[0], SIDE), max(size[1], SIDE)
    image = picture(sides, model.spec.shape.in_channels).to(device_of(network))
    try:
        out = model(image, budget=report.budget, always_adapt=True)
    except ValueError as error:
        return Gain(method, sides, report.budget, refused=str(error))
    share = out.macs / max(1, model(image, budget=1.0).macs)
    answerer = Answerer(model.engine, model.spec, None, Request("budget", report.budget))
    known = stored(answerer.setup)
    if known is None or not covers(known, sides):
        return Gain(method, sides, report.budget, share)
    pixels = math.prod(sides)
    times = known.predict(pixels, float(out.work[0])), known.dense(pixels)
    return Gain(method, sides, report.budget, share, "", *times)
