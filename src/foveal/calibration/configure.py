"""Settings of a method for a model: what a user gives, else what was calibrated, else what the card says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foveal.calibration.profile import METHOD, find_profile
from foveal.geometry.plan import check_budget
from foveal.hub.checkpoint import Model
from foveal.methods import METHODS, MethodConfig
from foveal.methods.config import settings_of
from foveal.storage.names import find

Settings = Mapping[str, object]
"""Values of settings by name."""


def configure(model: Model, method: str, budget: float, given: Settings) -> MethodConfig:
    """Choose every setting of a method.

    Args:
        model: A trained network; its card recommends tile and levels, and a profile beside it says more.
        method: Name in `foveal.methods.METHODS`.
        budget: Share of the dense work.
        given: Settings that come before all others.

    Raises:
        ValueError: There is no such method, it has no such setting, or a value is not allowed.
    """
    kind = find(method, METHODS, "method").Config
    known = settings_of(kind)
    strange = [name for name in given if name not in known]
    if strange:
        raise ValueError(
            f"method {method} has no setting {', '.join(strange)}; it has {', '.join(known) or 'none'}"
        )
    check_budget(budget)
    values: dict[str, Any] = {k: v for k, v in model.card.recommended.items() if k in known}
    profile = find_profile(model) if method == METHOD else None
    if profile is not None:
        found = profile.settings(budget, model.card.coarse_level)
        changed = {name for name in ("policy", "coarse_level") if given.get(name, found[name]) != found[name]}
        values |= {name: value for name, value in found.items() if name != "level_gain" or not changed}
    return kind(budget, **values | dict(given))
