"""What `foveal adapt` finds out about a trained network, kept as JSON beside its weights.

`MODEL.profile.json` lies in the folder of `MODEL.safetensors`; where that cannot be written, in the folder
for what is measured once per machine. The fingerprint of the weights says which network it belongs to.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from foveal.calibration.risk import RiskSetting, RiskTable
from foveal.hub.checkpoint import Model, fingerprint
from foveal.methods import CoarseToFineConfig
from foveal.program.quantise import Scales
from foveal.storage.atomic import write_atomically
from foveal.storage.cache import folder

METHOD = "coarse_to_fine"
"""The method that is calibrated."""
LEAST = 1.2
"""A budget below so many times the work of the first pass that was measured gets the card's coarser one."""


@dataclass(frozen=True)
class CurveRow:
    """Quality and time at one budget, against the network's own dense answers.

    Attributes:
        method: Name, or that of a control.
        budget: Share of the dense work that was asked for.
        work: Share that was spent.
        agreement: Share of the pixels with the dense label.
        disagreement: Class-balanced disagreement, a share.
        ms: Median time up to the labels [ms].
        images: Number of images.
    """

    method: str
    budget: float
    work: float
    agreement: float
    disagreement: float
    ms: float
    images: int


@dataclass(frozen=True)
class CalibrationProfile:
    """How a network refines best, and what that costs in disagreement with its dense self.

    Attributes:
        weights: Fingerprint of the network's weights.
        config: Settings that differ least from dense.
        class_weights: Weight of every class in the disagreement, from the dense network's own answers.
        images: Number of images that it was measured on.
        risk: Losses at every threshold.
        curve: Quality over work.
        scales: How its program is written in 8 bits; None if that was not asked for.
    """

    weights: str
    config: CoarseToFineConfig
    class_weights: tuple[float, ...]
    images: int
    risk: RiskTable
    curve: tuple[CurveRow, ...] = ()
    scales: Scales | None = None

    def settings(self, budget: float, coarsest: int) -> dict[str, Any]:
        """Return the settings for a budget.

        A budget that hardly pays for the first pass that was measured gets one at level `coarsest`, for which
        no gains were measured.
        """
        level = self.config.coarse_level
        if budget >= LEAST * 0.25**level or coarsest <= level:
            return {
                name: getattr(self.config, name) for name in ("policy", "tile", "coarse_level", "level_gain")
            }
        return {"policy": self.config.policy, "tile": self.config.tile, "coarse_level": coarsest}

    def save(self, model: Model) -> Path:
        """Write it beside the model, or where this machine keeps measurements; return the file."""
        state = json.dumps(asdict(self) | {"risk": self.risk.as_dict()})
        for path in _places(model, self.weights):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, state + "\n")
                return path
            except OSError as error:
                problem = error
        raise ValueError(f"what was found cannot be written ({problem}); give --out with another folder")


@dataclass(frozen=True)
class Risk:
    """A tolerated disagreement, and what keeps it.

    Attributes:
        allowed: Expected class-balanced disagreement with the dense network, a share.
        setting: Threshold that keeps it, or the dense network.
        profile: Where it comes from.
    """

    allowed: float
    setting: RiskSetting
    profile: CalibrationProfile

    @property
    def config(self) -> CoarseToFineConfig:
        """What keeps the risk: as many tiles as have the gain, whatever they cost."""
        return replace(self.profile.config, budget=1.0, threshold=self.setting.threshold)


def load_profile(model: Model) -> CalibrationProfile:
    """Read what `foveal adapt` found for a model.

    Raises:
        ValueError: Nothing was found yet, or what is there is damaged or of other weights.
    """
    weights = fingerprint(model.network)
    problems: list[ValueError] = []
    for path in _places(model, weights):
        try:
            if path.is_file():
                return _read(path, weights)
        except ValueError as error:  # the other place may hold a good one
            problems.append(error)
    raise (
        problems[0]
        if problems
        else ValueError(
            f"{model.name} has not been adapted yet; run foveal adapt {model.file or model.name} --images "
            "FOLDER (no labels needed)"
        )
    )


def find_profile(model: Model) -> CalibrationProfile | None:
    """Read what `foveal adapt` found for a model; None if nothing was, or nothing that can be used."""
    try:
        return load_profile(model)
    except ValueError:
        return None


def find_risk(model: Model, allowed: float) -> Risk:
    """Look up what keeps a risk.

    Raises:
        ValueError: The model has not been adapted, on too few images, or the risk is no share.
    """
    profile = load_profile(model)
    return Risk(allowed, profile.risk.choose(allowed), profile)


def _places(model: Model, weights: str) -> list[Path]:
    beside = [model.file.with_suffix(".profile.json")] if model.file else []
    return [*beside, folder() / "profile" / f"{weights}.json"]


def _read(path: Path, weights: str) -> CalibrationProfile:
    try:
        state = json.loads(path.read_text())
        settings = state["config"] | {"level_gain": tuple(map(float, state["config"]["level_gain"]))}
        profile = CalibrationProfile(
            weights=str(state["weights"]),
            config=CoarseToFineConfig(**settings),
            class_weights=tuple(map(float, state["class_weights"])),
            images=int(state["images"]),
            risk=RiskTable.from_dict(state["risk"]),
            curve=tuple(CurveRow(**row) for row in state["curve"]),
            scales=_scales(state.get("scales")),
        )
        _ = profile.config.refinement
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: damaged ({error}); run foveal adapt again") from None
    if profile.weights != weights:
        raise ValueError(f"{path}: belongs to other weights; run foveal adapt again")
    return profile


def _scales(state: dict[str, Any] | None) -> Scales | None:
    """Read the scales of an int8 program, if there are any."""
    if state is None:
        return None
    kinds = {"steps": str, "scale": float, "zero": int, "kept": int}
    return Scales(
        **{k: tuple(map(kind, state[k])) for k, kind in kinds.items()}, agreement=float(state["agreement"])
    )
