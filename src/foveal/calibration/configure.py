"""Settings of a method for a model: what a user gives, else what was calibrated, else what the card says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from foveal.calibration.profile import METHOD, find_profile
from foveal.calibration.tuned import TunedRow, TunedSettings, find_tuned
from foveal.geometry.plan import check_budget
from foveal.hub.checkpoint import Model
from foveal.methods import METHODS, AdaptiveSegmenter, MethodConfig
from foveal.methods.config import settings_of
from foveal.methods.parts import words_of
from foveal.storage.names import find

Settings = Mapping[str, object]
"""Values of settings by name."""


@dataclass(frozen=True)
class Asked:
    """What a user asks for; what is None, or not among the settings, is left to the program.

    Attributes:
        method: Name of the method.
        precision: What its program computes in.
        settings: Of the method, by name.
        budget: Share of the dense work; the usual one if absent.
        latency: Time of an image [ms].
    """

    method: str | None = None
    precision: str | None = None
    settings: Settings = field(default_factory=dict)
    budget: float | None = None
    latency: float | None = None


@dataclass(frozen=True)
class Chosen:
    """What runs.

    Attributes:
        method: Name of the method.
        config: Its settings.
        precision: What its program computes in.
        why: Who chose it, in a sentence; empty if nobody did but the user and the defaults.
        most: Largest budget that a latency may buy: beyond it quality falls.
    """

    method: str
    config: MethodConfig
    precision: str = "f32"
    why: str = ""
    most: float = 1.0


def choose(model: Model, asked: Asked, method: str) -> Chosen:
    """Choose what runs: what a user gives, else what `foveal tune` found, else the usual settings.

    Args:
        model: A trained network.
        asked: What the user gives.
        method: Name of the method where nobody says another.

    Raises:
        ValueError: As of `configure`, or what was found is damaged.
    """
    tuned = find_tuned(model)
    found = None if tuned is None else choose_tuned(model, tuned, asked)
    if found is not None:
        return found
    name, budget = asked.method or method, MethodConfig.budget if asked.budget is None else asked.budget
    return Chosen(name, configure(model, name, budget, asked.settings), asked.precision or "f32")


def choose_tuned(model: Model, tuned: TunedSettings, asked: Asked) -> Chosen | None:
    """Choose among what `foveal tune` found all that has what a user gives; None if nothing does.

    Raises:
        ValueError: The budget is no share.
    """
    wishes = asked.method, asked.precision, asked.settings
    if asked.latency is not None:
        row = tuned.for_latency(asked.latency, *wishes)
        return None if row is None else _for_latency(model, row, tuned.why(row))
    budget = check_budget(MethodConfig.budget if asked.budget is None else asked.budget)
    row = tuned.for_budget(budget, *wishes)
    return None if row is None else Chosen(row.method, row.config, row.precision, tuned.why(row))


def _for_latency(model: Model, row: TunedRow, why: str) -> Chosen:
    """Let a latency buy as much of a row as fits; tiles of a shrunk image if all of it is too slow."""
    if row.config.adjustable:
        return Chosen(row.method, row.config, row.precision, why, row.config.budget)
    config = replace(configure(model, METHOD, MethodConfig.budget, {}), scale=row.config.scale)
    return Chosen(METHOD, config, row.precision, why)


def check_parts(model: Model, method: str) -> type[AdaptiveSegmenter]:
    """Find a method by name, and refuse it for a model that lacks what must have been trained with it.

    Raises:
        ValueError: There is no such method, or the model lacks the part that it needs.
    """
    made = find(method, METHODS, "method")
    if made.needs is not None and model.part(made.needs) is None:
        raise ValueError(
            f"{model.name} has no {words_of(made.needs).removeprefix('a ')}, which {method} needs: train the "
            f"network with a recipe of method {method} (see recipes/), and give what that wrote"
        )
    return made


def configure(model: Model, method: str, budget: float, given: Settings) -> MethodConfig:
    """Choose every setting of a method.

    Args:
        model: A trained network; its card recommends tile and levels, and a profile beside it says more.
        method: Name in `foveal.methods.METHODS`.
        budget: Share of the dense work.
        given: Settings that come before all others.

    Raises:
        ValueError: There is no such method, it has no such setting, a value is not allowed, or the model
            lacks a part that the method needs.
    """
    made = check_parts(model, method)
    kind = made.Config
    known = settings_of(kind)
    strange = [name for name in given if name not in known]
    if strange:
        able = [name for name, other in METHODS.items() if set(strange) <= set(settings_of(other.Config))]
        remedy = f"; give --method {' or '.join(able)} for it" if able else ""
        has = ", ".join(known) or "none"
        raise ValueError(f"method {method} has no setting {', '.join(strange)}; it has {has}{remedy}")
    check_budget(budget)
    values: dict[str, Any] = {k: v for k, v in model.card.recommended.items() if k in known}
    profile = find_profile(model) if method == METHOD else None
    if profile is not None:
        found = profile.settings(budget, model.card.coarse_level)
        changed = {name for name in ("policy", "coarse_level") if given.get(name, found[name]) != found[name]}
        values |= {name: value for name, value in found.items() if name != "level_gain" or not changed}
    return kind(budget, **values | dict(given))
