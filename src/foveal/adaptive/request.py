"""What one call of an adaptive model asks for, and the method that answers it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Real
from typing import Any, Literal

from foveal.adaptive.spec import Specification
from foveal.calibration.configure import Asked, Chosen, choose_tuned
from foveal.calibration.engine import Engine
from foveal.calibration.latency import Setup
from foveal.calibration.profile import METHOD, CalibrationProfile, Risk
from foveal.calibration.selector import BudgetSelector, Choice
from foveal.calibration.tuned import TunedSettings
from foveal.geometry.plan import check_budget
from foveal.methods import METHODS, AdaptiveSegmenter, MethodConfig
from foveal.methods.config import settings_of
from foveal.storage.labels import MASK_BORDERS
from foveal.storage.names import find
from foveal.storage.reading import shorten

Kind = Literal["budget", "latency_ms", "risk", "threshold"]
DENSE, MASKED = "dense", "masked"
"""Keys of the dense network, and of what leaves places out."""
MASK_BORDER = "mask_border"
"""Setting of methods whose first pass can go beyond a mask."""
ANY = 0.5
"""A budget to start from where a latency chooses it."""


@dataclass(frozen=True)
class Request:
    """What may be spent.

    Attributes:
        kind: What is limited.
        value: Share of the dense work; time [ms]; expected disagreement with dense; gain per tile.
        always_adapt: Whether tiles run also where they are predicted to save nothing.
        mask_border: What the edge of a mask borders on: "edge", as at the image's, or "coarse", a first pass.
    """

    kind: Kind
    value: float
    always_adapt: bool = False
    mask_border: str = "edge"

    @classmethod
    def read(cls, always_adapt: bool, mask_border: str = "edge", **given: float | None) -> Request:
        """Take the one limit that is given.

        Raises:
            ValueError: None is given, or more than one, or it is no number; or there is no such border.
        """
        find(mask_border, dict.fromkeys(MASK_BORDERS), "mask_border")
        limits = {name: value for name, value in given.items() if value is not None}
        if len(limits) != 1:
            shown = ", ".join(f"{name}={value}" for name, value in limits.items()) or "no limit"
            raise ValueError(
                f"{shown} is given; give exactly one of {', '.join(given)}, such as model(image, budget=0.4)"
            )
        ((name, value),) = limits.items()
        if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
            raise ValueError(f"{name} is {shorten(repr(value), 60)}; give a number")
        return cls(name, float(value), always_adapt, mask_border)


@dataclass
class Answerer:
    """Chooses what runs for one request, once per size of an image.

    Attributes:
        engine: What runs the network.
        spec: What is known about the model.
        profile: What calibration found; None if there was none.
        request: What may be spent.
        tuned: What `foveal tune` found; None if nothing did.

    Raises:
        ValueError: The method or the model cannot keep what is asked for.
    """

    engine: Engine
    spec: Specification
    profile: CalibrationProfile | None
    request: Request
    tuned: TunedSettings | None = None
    _made: dict[float | str, AdaptiveSegmenter] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        kind, value = self.request.kind, self.request.value
        self.risk = self._risk(value) if kind == "risk" else None
        chosen = self._tuned(kind, value)
        if chosen is None:
            config = self.risk.config if self.risk else self._config(kind, value)
            chosen = Chosen(self.spec.method, config)
        self.why = chosen.why
        self.setup = Setup(self.engine, chosen.method, self._bordered(chosen))
        latency = value if kind == "latency_ms" else None
        self.selector = BudgetSelector(self.setup, latency, self.request.always_adapt)
        self.selector.setting = self.risk.setting if self.risk else None
        self.selector.most = chosen.most

    def choose(self, size: tuple[int, int]) -> Choice:
        """Choose for images of a size [px] what runs, and why.

        Raises:
            ValueError: A latency is asked for that nothing keeps.
        """
        if self.request.kind != "threshold":
            return self.selector(size)
        if self.setup.least_work(size) >= self.setup.share(size):
            return Choice(1.0, f"small for tiles of {self.spec.tile} px, a first pass saves nothing")
        return Choice(1.0)

    def method(self, choice: Choice) -> AdaptiveSegmenter:
        """Return the method that a choice names; made once."""
        key = DENSE if choice.reason else choice.budget
        if key not in self._made:
            dense = self.setup.make_dense
            self._made[key] = dense() if choice.reason else self._mixed(self.setup.make(choice.budget), dense)
        return self._made[key]

    def method_for_mask(self, choice: Choice) -> AdaptiveSegmenter:
        """Return the method that a choice names, where it leaves out what a mask does not want.

        The dense network becomes everything at level 0, so that there are tiles to leave out.
        """
        key = f"{MASKED} {choice.reason} {choice.budget}"
        if key not in self._made:
            make = partial(self.setup.make_for_mask, choice.budget)
            made = make(bool(choice.reason))
            self._made[key] = made if choice.reason else self._mixed(made, partial(make, True))
        return self._made[key]

    def _mixed(self, method: AdaptiveSegmenter, dense: Callable[[], AdaptiveSegmenter]) -> AdaptiveSegmenter:
        """Mix a method with the dense network as a risk asks for it."""
        if self.risk is None or self.risk.setting.share == 1:
            return method
        return self.risk.mixed(method, dense())

    def _bordered(self, chosen: Chosen) -> MethodConfig:
        """Return the settings with the border of masks that is asked for.

        Raises:
            ValueError: The method computes nothing beyond a mask.
        """
        if self.request.mask_border == "edge":
            return chosen.config
        if MASK_BORDER not in settings_of(type(chosen.config)):
            raise ValueError(
                f"mask_border is {self.request.mask_border}, and method {chosen.method} has no first pass "
                f'that could go beyond a mask; give mask_border="edge", or adapt with method="{METHOD}"'
            )
        return replace(chosen.config, mask_border=self.request.mask_border)  # type: ignore[call-arg]

    def _tuned(self, kind: Kind, value: float) -> Chosen | None:
        """Choose among what `foveal tune` found; None if there is nothing, or another limit is given."""
        if self.tuned is None or kind not in ("budget", "latency_ms"):
            return None
        method = None if self.spec.method == METHOD else self.spec.method
        budget, latency = (value if kind == name else None for name in ("budget", "latency_ms"))
        asked = Asked(method, self.engine.precision, {}, budget, latency)
        return choose_tuned(self.engine.model, self.tuned, asked)

    def _settings(self, method: str) -> dict[str, Any]:
        """Return the model's own settings, those that a method has."""
        spec, known = self.spec, settings_of(find(method, METHODS, "method").Config)
        values: dict[str, Any] = {"tile": spec.tile, "scale": spec.scale}
        values |= {"max_level": spec.coarse_level, "coarse_level": spec.coarse_level}
        return {name: value for name, value in values.items() if name in known}

    def _config(self, kind: str, value: float) -> MethodConfig:
        method = self.spec.method
        budget = check_budget(value) if kind == "budget" else ANY
        values = self._settings(method)
        if self.profile is not None and method == METHOD:
            values |= self.profile.settings(budget, self.spec.coarse_level)
        config = find(method, METHODS, "method").Config(budget, **values)
        if kind != "threshold":
            return config
        if "threshold" not in settings_of(METHODS[method].Config):
            raise ValueError(
                f"method {method} has no threshold; give budget or latency_ms, or adapt with "
                'method="coarse_to_fine"'
            )
        return replace(config, budget=1.0, threshold=value)  # type: ignore[call-arg]

    def _risk(self, allowed: float) -> Risk:
        if self.spec.method != METHOD:
            raise ValueError(
                f'method {self.spec.method} keeps no risk; adapt with method="{METHOD}", or give budget'
            )
        if self.profile is None:
            raise ValueError(
                "risk needs to know how much tiles cost in agreement; call model.calibrate(images) first "
                "(no labels needed)"
            )
        return Risk(allowed, self.profile.risk.choose(allowed), self.profile)
