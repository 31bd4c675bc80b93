"""What `foveal adapt` and `foveal calibrate` found, as terminal text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foveal.reporting.table import table

if TYPE_CHECKING:
    from foveal.calibration.cost_model import CostModel
    from foveal.calibration.profile import CalibrationProfile

UNSEEN = (
    "without labels nobody can tell whether the network sees better at a smaller scale than at full size; "
    "`foveal tune` finds out with a few labelled images"
)
RISKS = (0.005, 0.01, 0.02, 0.05)
"""Risks that a report names."""


def profile_text(profile: CalibrationProfile, file: Path, picture: str) -> str:
    """What `foveal adapt` found: quality over work and time, and what risks cost."""
    names = {"dense": "dense", "coarse_to_fine": "coarse to fine", "random": "at random", "uniform": "coarse"}
    cells = [
        (
            names[row.method],
            f"{row.budget:g}",
            f"{row.work:.3f}",
            f"{row.agreement:.2%}",
            f"{row.disagreement:.2%}",
            f"{row.ms:.1f}",
        )
        for row in profile.curve
    ]
    head = ("", "budget", "work", "as dense", "balanced risk", "ms")
    config = profile.config
    gains = ", ".join(f"{gain:g}" for gain in config.level_gain)
    lines = [
        table(head, cells),
        f"\nfirst pass at level {config.coarse_level}, tile {config.tile} px, score {config.policy}, "
        f"gain of a step to level 0, 1, ...: {gains}",
        *(_risk_line(profile, allowed) for allowed in RISKS),
        _images_line(profile),
        UNSEEN,
        f"wrote {file}{f' and {picture}' if picture else ''}",
    ]
    return "\n".join(lines)


def _risk_line(profile: CalibrationProfile, allowed: float) -> str:
    try:
        setting = profile.risk.choose(allowed)
    except ValueError as error:
        return f"risk {allowed:.1%}   {error}"
    some = "" if setting.share == 1 else f", {setting.share:.1%} of the images adapted"
    how = "the dense network" if setting.dense else f"work {setting.work:.3f} on average{some}"
    return f"risk {allowed:.1%}   {how}"


def _images_line(profile: CalibrationProfile) -> str:
    """Say what the risk is of, and which images it comes from."""
    kind = {"dense": "disagreement with dense", "labels": "error on labels beyond the dense network's"}
    images = (
        f"the same {profile.images} images chose settings and calibrated"
        if profile.chosen_on in (None, profile.images)
        else f"{profile.chosen_on} images chose settings, {profile.calibrated_on} others calibrated"
    )
    return f"the risk is of {kind[profile.risk_of]}, a mean over images; {images}"


def cost_text(model: CostModel, title: str) -> str:
    """Measured and predicted times of a machine; `title` says of what."""
    cells = []
    for row in model.rows:
        size = f"{row.size[1]} x {row.size[0]}"
        cells.append([size, "dense", f"{row.dense_ms:.1f}", f"{model.dense(row.pixels):.1f}"])
        cells += [
            ["", f"{work:.3f}", f"{ms:.1f}", f"{model.predict(row.pixels, work):.1f}"]
            for work, ms in row.runs
        ]
    largest = max(model.rows, key=lambda row: row.pixels)
    share = model.work_for(largest.pixels, model.dense(largest.pixels))
    pays = "tiles do not pay" if share <= 0 else f"tiles pay up to a budget of {min(share, 1):.2f}"
    closing = f"predictions are off by {model.error:.1%}; at {largest.size[1]} x {largest.size[0]} px {pays}"
    return "\n".join([title, table(("px", "work", "ms", "predicted"), cells), closing])
