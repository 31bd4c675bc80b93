"""Results of `foveal adapt` for a trained network, stored as `MODEL.profile.json` beside its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from foveal.calibration.risk import RiskSetting, RiskTable
from foveal.calibration.risk.drawn import Draw, DrawnMethod
from foveal.hub.beside import Beside
from foveal.hub.beside import Unusable as Unusable
from foveal.hub.checkpoint import Model
from foveal.methods import AdaptiveSegmenter, CoarseToFineConfig
from foveal.methods.config import SettingValue
from foveal.program.quantise import Scales
from foveal.storage.schema import Count, Number, Share
from foveal.storage.store import Record

METHOD = "coarse_to_fine"
"""The method that is calibrated."""
RiskOf = Literal["dense", "labels"]
"""What a risk is of: disagreement with the dense network, or the error of labels beyond that network's."""
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
    budget: Number
    work: Number
    agreement: Share
    disagreement: Share
    ms: Number
    images: Count


MEASURED = "policy", "tile", "isolated_gain", "coarse_level", "level_gain"
"""Settings that are found; the last two belong together."""


def _complete(record: Record) -> Record:
    """Add the settings that records from before they existed do not name, with what they were then."""
    given = record.get("config")
    return {**record, "config": {**CoarseToFineConfig.unsaid, **given}} if isinstance(given, dict) else record


@dataclass(frozen=True)
class CalibrationProfile:
    """Best refinement settings of a network, and the disagreement with its dense answer that they cost.

    Attributes:
        weights: Fingerprint of the network's weights.
        config: Settings that differ least from dense.
        class_weights: Weight of every class in the disagreement, from the dense network's own answers.
        images: Number of images that it was measured on.
        risk: Losses at every threshold.
        curve: Quality over work.
        scales: How its program is written in 8 bits; None if that was not asked for.
        risk_of: What the losses of `risk` are.
        chosen_on: Number of images that settings, thresholds and class weights were chosen on, others than
            those of `risk`; None in older profiles, which used all of them for both.
    """

    weights: str
    config: CoarseToFineConfig
    class_weights: tuple[Number, ...]
    images: Count
    risk: RiskTable
    curve: tuple[CurveRow, ...] = ()
    scales: Scales | None = None
    risk_of: RiskOf = "dense"
    chosen_on: Count | None = None

    @property
    def calibrated_on(self) -> int:
        """Number of images whose losses keep a risk."""
        return len(self.risk.losses)

    def settings(self, budget: float, coarse_level: int) -> dict[str, SettingValue]:
        """Return the settings for a budget.

        A budget that hardly pays for the first pass that was measured gets one at level `coarse_level`, for
        which no gains were measured.
        """
        level = self.config.coarse_level
        if budget >= LEAST * 0.25**level or coarse_level <= level:
            return {name: getattr(self.config, name) for name in MEASURED}
        return {name: getattr(self.config, name) for name in MEASURED[:3]} | {"coarse_level": coarse_level}

    def save(self, model: Model) -> Path:
        """Write it beside the model, or where this machine keeps measurements; return the file.

        Raises:
            ValueError: It cannot be written, or what is beside the model cannot be replaced.
        """
        return PROFILES.save(model, self.weights, asdict(self) | {"risk": self.risk.as_dict()})


PROFILES = Beside(
    "profile",
    CalibrationProfile,
    "foveal adapt",
    "{name} has not been adapted yet; run foveal adapt {model} --images FOLDER (no labels needed)",
    lambda profile: profile.config.refinement,
    complete=_complete,
)


@dataclass(frozen=True)
class Risk:
    """A tolerated loss, and what keeps it.

    Attributes:
        allowed: Expected class-balanced disagreement with the dense network, or error beyond it, a share.
        setting: Threshold that keeps it and the share of the images that it is for, or the dense network.
        profile: Where it comes from.
    """

    allowed: float
    setting: RiskSetting
    profile: CalibrationProfile

    @property
    def config(self) -> CoarseToFineConfig:
        """What keeps the risk: as many tiles as have the gain, whatever they cost."""
        return replace(self.profile.config, budget=1.0, threshold=self.setting.threshold)

    @property
    def draw(self) -> Draw:
        """Which images run at the threshold."""
        return Draw(self.setting.share, self.profile.weights)

    def mixed(self, method: AdaptiveSegmenter, dense: AdaptiveSegmenter) -> AdaptiveSegmenter:
        """Return what runs a method on the share of the images that it is for, and dense on the others."""
        return method if self.setting.share == 1 else DrawnMethod(method, dense, self.draw).eval()


def load_profile(model: Model) -> CalibrationProfile:
    """Read what `foveal adapt` found for a model.

    Raises:
        NotMeasured: Nothing was found yet, or for other weights.
        Unusable: What is there is damaged, and the other place has nothing either.
    """
    return PROFILES.load(model)


def find_profile(model: Model) -> CalibrationProfile | None:
    """Read what `foveal adapt` found for a model; None if nothing was, or for other weights.

    Raises:
        Unusable: What is there is damaged: without it, other settings would be used unnoticed.
    """
    return PROFILES.find(model)


def find_risk(model: Model, allowed: float) -> Risk:
    """Look up what keeps a risk.

    Raises:
        ValueError: The model has not been adapted, on too few images, or the risk is no share.
    """
    profile = load_profile(model)
    return Risk(allowed, profile.risk.choose(allowed), profile)
