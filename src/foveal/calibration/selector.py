"""What runs on an image of some size: the method with a budget, or the dense network, and why (law 12)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from torch import Tensor

from foveal.calibration.cost_model import CostModel
from foveal.calibration.latency import Report, Setup, cost_model, covers, silent, stored, tile_of
from foveal.calibration.risk import RiskSetting
from foveal.calibration.risk.drawn import Draw
from foveal.calibration.whole_maps import budget_on_tiles

SMALL = 4
"""An image with a side of fewer tiles is small: padding may cost more than the tiles save."""
MOST = 0.99
"""Largest budget for a latency: everything at full resolution is for the dense network."""
STEPS = 1000
"""Budgets for a latency are whole multiples of 1 / STEPS, so that they can be asked for again."""


@dataclass(frozen=True)
class Choice:
    """What runs on an image.

    Attributes:
        budget: Share of the dense work that may be spent.
        reason: Why the dense network runs, at the scale of the settings; empty if the method does.
        predicted_ms: Time that the cost model predicts for it [ms]; None if there is none.
        latency: Time that was asked for [ms]; None if a budget was.
        overruled: Whether the method fits what was asked for, but is predicted to be no faster.
    """

    budget: float = 1.0
    reason: str = ""
    predicted_ms: float | None = None
    latency: float | None = None
    overruled: bool = False


@dataclass
class BudgetSelector:
    """Chooses once per size of an image.

    Attributes:
        setup: What may run. Its budget counts where no latency is given.
        latency: Time that a run may take [ms]; None for the budget of the setup.
        always_adapt: Whether the method runs also where the cost model predicts no gain.
        report: Called with what is done before it takes time.
        setting: What keeps a risk, if one is tolerated.
        most: Largest budget that a latency may buy.

    Raises:
        ValueError: The latency is no time, or the method and its policy have no budget to choose.
    """

    setup: Setup
    latency: float | None = None
    always_adapt: bool = False
    report: Report = silent
    setting: RiskSetting | None = None
    most: float = 1.0
    _known: CostModel | None = field(default=None, init=False)
    _choices: dict[tuple[int, int], Choice] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.latency is None:
            return
        if not 0 < self.latency < math.inf:
            raise ValueError(f"latency is {self.latency:g} ms; it must be above 0")
        if not self.setup.adjustable:
            raise ValueError(
                f"latency is {self.latency:g} ms, and method {self.setup.title} has no budget to choose; "
                "give another method or policy, or no latency"
            )

    def __call__(self, size: tuple[int, int]) -> Choice:
        """Choose for an image of `size` [px].

        Raises:
            ValueError: A latency is asked for, and neither the dense network nor any plan is that fast.
        """
        if size not in self._choices:
            self._choices[size] = self._for_budget(size) if self.latency is None else self._for_latency(size)
        return self._choices[size]

    def for_image(self, image: Tensor, draw: Draw | None) -> Choice:
        """Choose for one image [C, H, W]: dense for those that a draw leaves out, so that a risk is kept."""
        choice = self((image.shape[1], image.shape[2]))
        if choice.reason or draw is None or draw(image):
            return choice
        return replace(choice, reason=f"one of the {1 - draw.share:.1%} of the images that keep the risk")

    def _for_budget(self, size: tuple[int, int]) -> Choice:
        """Run dense where tiles cannot pay, or where a stored cost model says so; no time is measured."""
        config = self.setup.config
        reason = self._cannot_pay(size)
        if not reason and not self.always_adapt:
            self._known = self._known or stored(self.setup)
        budget = config.budget if reason or self.setting else budget_on_tiles(self.setup, size)
        if reason or self._known is None or not covers(self._known, size):
            return Choice(budget, reason)
        least = self.setup.least_work(size)
        asked = budget if self.setting is None else self.setting.adapted_work
        work = max(asked, least) if self.setup.adjustable else least
        ours = self._known.predict(math.prod(size), work)
        dense = self._dense_ms(self._known, size)
        if ours < dense:
            return Choice(budget, predicted_ms=ours)
        reason = f"predicted {dense:.1f} ms against {ours:.1f} ms on tiles"
        return Choice(budget, reason, dense, overruled=True)

    def _for_latency(self, size: tuple[int, int]) -> Choice:
        """Run dense if that is fast enough, else choose the largest budget that is."""
        latency = self.latency or 0.0
        model = self._known = cost_model(self.setup, size, self.report, self._known)
        pixels, least = math.prod(size), self.setup.least_work(size)
        dense, cheapest, whole = self._dense_ms(model, size), model.predict(pixels, least), self._whole(size)
        wanted = self.most < whole and least < whole and model.predict(pixels, self.most) < dense
        if dense <= latency and not wanted and (not self.always_adapt or least >= whole):
            reason = f"predicted {dense:.1f} ms, within the {latency:g} ms asked for"
            return Choice(1.0, reason, dense, latency)
        if cheapest > latency or least >= whole:
            raise ValueError(
                f"latency is {latency:g} ms; predicted for {size[0]}x{size[1]} px on this machine are "
                f"{cheapest:.1f} ms with the cheapest plan and {dense:.1f} ms with the dense network; allow "
                "more time, reduce the image, or allow coarser levels"
            )
        share = min(self.most, MOST * whole, model.work_for(pixels, latency))
        budget = max(least, math.floor(share * STEPS) / STEPS)
        return Choice(budget, "", model.predict(pixels, budget), latency)

    def _whole(self, size: tuple[int, int]) -> float:
        """Return the work of the dense network at the scale of the settings."""
        return self.setup.share(size)

    def _dense_ms(self, model: CostModel, size: tuple[int, int]) -> float:
        """Predict the time of the dense network at the scale of the settings [ms].

        That is never more than at full size, so whatever beats it beats both.
        """
        return model.dense(round(math.prod(size) * self._whole(size)))

    def _cannot_pay(self, size: tuple[int, int]) -> str:
        """Say why tiles cannot pay for an image of this size; empty if they may."""
        if self.setting is not None and self.setting.dense:
            return "nothing that costs less keeps the risk"
        config, least, whole = self.setup.config, self.setup.least_work(size), self._whole(size)
        tile = tile_of(config)
        if self.setting is not None:
            return f"small for tiles of {tile} px, a first pass saves nothing" if least >= whole else ""
        if config.is_dense:
            return "everything at full resolution is what the dense network computes"
        if self.setup.is_dense(size):
            return f"everything at scale {config.scale:g} takes {whole:.3g} of the work, which is paid for"
        small = min(size) * config.scale < SMALL * tile
        if least >= whole or (small and least > config.budget):
            return f"small for tiles of {tile} px, the cheapest plan takes {least:.2g} of the dense work"
        return ""
