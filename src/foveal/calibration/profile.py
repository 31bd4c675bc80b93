"""What `foveal adapt` finds out about a trained network, kept as JSON beside its weights.

`MODEL.fit.json` lies in the folder of `MODEL.safetensors`; where that cannot be written, in the folder for
what is measured once per machine. The fingerprint of the weights says which network it belongs to.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from foveal.calibration.risk import RiskTable, Setting
from foveal.hub.checkpoint import Model, fingerprint
from foveal.methods import Request
from foveal.methods.coarse_to_fine import Closer
from foveal.storage.cache import folder


@dataclass(frozen=True)
class Fit:
    """How a network looks closer best, and what that costs in disagreement with its dense self.

    Attributes:
        weights: Fingerprint of the network's weights.
        tile: Side of a tile [px].
        look: Level of the first look.
        policy: Name of the score.
        worth: What a step to level 0, 1, ... gains, as a share of the score.
        class_weights: Weight of every class in the disagreement, from the dense network's own answers.
        images: Number of images that it was measured on.
        risk: Losses at every threshold.
        curve: Quality over work, for people: rows of method, budget, work, agreement, disagreement, ms.
    """

    weights: str
    tile: int
    look: int
    policy: str
    worth: tuple[float, ...]
    class_weights: tuple[float, ...]
    images: int
    risk: RiskTable
    curve: list[dict[str, Any]] = field(default_factory=list)

    def request(self, budget: float) -> Request:
        """Ask for a budget, with what was found."""
        return Request(budget, self.policy, self.tile, self.look, self.look, worth=self.worth)

    def save(self, model: Model) -> Path:
        """Write it beside the model, or where this machine keeps measurements; return the file."""
        state = json.dumps(asdict(self) | {"risk": self.risk.as_dict()})
        for path in _places(model, self.weights):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(state + "\n")
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
        fit: Where it comes from.
    """

    allowed: float
    setting: Setting
    fit: Fit

    @property
    def request(self) -> Request:
        """What keeps the risk: as many tiles as have the gain, whatever they cost."""
        return replace(self.fit.request(1.0), threshold=self.setting.threshold)


def load_fit(model: Model) -> Fit:
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


def find_fit(model: Model) -> Fit | None:
    """Read what `foveal adapt` found for a model; None if nothing was, or nothing that can be used."""
    try:
        return load_fit(model)
    except ValueError:
        return None


def find_risk(model: Model, allowed: float) -> Risk:
    """Look up what keeps a risk.

    Raises:
        ValueError: The model has not been adapted, on too few images, or the risk is no share.
    """
    fit = load_fit(model)
    return Risk(allowed, fit.risk.choose(allowed), fit)


def _places(model: Model, weights: str) -> list[Path]:
    beside = [model.file.with_suffix(".fit.json")] if model.file else []
    return [*beside, folder() / "fit" / f"{weights}.json"]


def _read(path: Path, weights: str) -> Fit:
    try:
        state = json.loads(path.read_text())
        state["risk"] = RiskTable.from_dict(state["risk"])
        for key in ("worth", "class_weights"):
            state[key] = tuple(map(float, state[key]))
        for key in ("tile", "look", "images"):
            state[key] = int(state[key])
        fit = Fit(**state)
        Closer(worth=fit.worth)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: damaged ({error}); run foveal adapt again") from None
    if fit.weights != weights:
        raise ValueError(f"{path}: belongs to other weights; run foveal adapt again")
    return fit
