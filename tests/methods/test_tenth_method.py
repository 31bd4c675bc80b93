"""Another method is one file and one line: nothing else has to know of it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import parsed, refused, run, small_model
from foveal.data.image import save_image
from foveal.data.pairs import default_palette
from foveal.data.synthetic import CLASSES, street
from foveal.hub.card import Card
from foveal.hub.checkpoint import save_model
from foveal.methods import METHODS
from foveal.training.config import RecipeError, read_recipe
from samples import nano, write_folder

TENTH = '''"""Tenth: everything at one level that sharpness says.

Adapts   the resolution of the whole image.
Decides  nobody.
Knob     sharpness.
Source   a test.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from foveal.geometry.plan import Plan
from foveal.methods.base import TrainableSegmenter, check_image, mark_dense_modules
from foveal.methods.config import MethodConfig, MethodTraining, setting
from foveal.methods.prediction import Prediction, Step, Trace
from foveal.objectives.segmentation import cross_entropy
from foveal.tiles import split


@dataclass(frozen=True)
class TenthConfig(MethodConfig):
    tile: int = setting(32, "Side of a tile [px].", 1)
    coarse_level: int = setting(1, "Level where the budget is below 1.", 0, 6)
    sharpness: float = setting(1.0, "How sharp everything is.", 0.5, 4.0)


class TenthTraining(MethodTraining):
    sharpness: Annotated[float, Field(gt=0)] = 1.0


class Tenth(TrainableSegmenter):
    Config = TenthConfig
    Training = TenthTraining
    decides_from = "the budget"

    def __init__(self, network, config):
        super().__init__()
        self.network, self.config = network, config
        mark_dense_modules(network)

    @classmethod
    def from_config(cls, network, config, resources=None):
        return cls(network, config)

    @classmethod
    def for_training(cls, network, training, aim):
        return cls(network, TenthConfig(sharpness=training.sharpness))

    def decide(self, image):
        size = check_image(image)
        level = 0 if self.config.budget >= 1 else self.config.coarse_level
        return Plan.uniform(len(image), size, self.config.tile, level)

    def forward(self, image, memory=None):
        plan = self.decide(image)
        if float(plan.work.max()) > self.config.budget and self.config.budget < 1:
            raise ValueError("budget is too small for a plan; raise the budget")
        logits = self.network(split(image, plan)).dense()
        return Prediction(logits, plan.size, Trace((Step("network", plan.work, plan),)))

    def dense(self):
        return self.network

    def least_work(self, size):
        level = 0 if self.config.budget >= 1 else self.config.coarse_level
        return float(Plan.uniform(1, size, self.config.tile, level).work)

    def loss(self, image, target):
        return {"segmentation": cross_entropy(self.network(image), target)}
'''


@pytest.fixture
def tenth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the file of a method, and enter its line."""
    file = tmp_path / "tenth.py"
    file.write_text(TENTH)
    spec = importlib.util.spec_from_file_location("tenth", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tenth", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METHODS, "tenth", module.Tenth)
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path)


def test_it_is_listed_with_what_its_file_says(tenth: Path) -> None:
    row = next(row for row in parsed(run("methods", "--json")) if row["name"] == "tenth")
    assert row["knob"] == "sharpness." and row["adapts"] == "the resolution of the whole image."


def test_its_settings_are_options(tenth: Path, model: Path, tmp_path: Path) -> None:
    save_image(street(1, (96, 160))[0], tmp_path / "street.png")
    call = ("segment", tmp_path / "street.png", "--model", model, "--out", tmp_path / "out")
    row = parsed(run(*call, "--method", "tenth", "--sharpness", 2, "--budget", 0.5, "--json"))
    assert row["work"] <= 0.5 and row["levels"] == {"2": 1.0}  # the level that the card recommends
    assert all(word in run("segment", "--help").stdout for word in ("--sharpness", "(tenth)"))
    assert "sharpness" in refused(run(*call, "--method", "tenth", "--sharpness", 9))
    assert "has no setting sharpness" in refused(run(*call, "--method", "segblocks", "--sharpness", 2))


def test_a_recipe_knows_its_keys(tenth: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[method]\nname = "tenth"\nsharpness = 3.0\n')
    assert read_recipe(path).method.model_dump()["sharpness"] == 3.0
    with pytest.raises(RecipeError, match="did you mean 'sharpness'"):
        read_recipe(path, ["method.sharpnes=1.0"])


def test_it_is_evaluated(tenth: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 2, (64, 96))
    card = Card("swiftnet_nano", CLASSES, default_palette(len(CLASSES)))
    model = save_model(nano(len(CLASSES)), card, tmp_path / "streets")
    call = ("evaluate", model, "--data", f"folder:{data}", "--timed", 0, "--json")
    rows = parsed(run(*call, "--method", "tenth", "--sharpness", 1, 2, "--budget", 0.5))
    assert [row["method"] for row in rows] == ["dense", "tenth", "tenth"]


def test_it_is_held_to_the_laws(tenth: Path) -> None:
    """The conformance tests run for it because it is in the table."""
    (tenth.parent / "entered.py").write_text(
        "from foveal.methods import METHODS\nfrom tenth import Tenth\nMETHODS['tenth'] = Tenth\n"
    )
    laws = Path(__file__).parents[1] / "laws"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "entered",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    paths = os.pathsep.join([str(tenth.parent), *filter(None, sys.path)])
    files = [
        str(laws / f"test_law_{name}.py") for name in ("01_dense", "04_budgets", "07_pure", "09_any_image")
    ]
    done = subprocess.run(
        [*command, "-k", "tenth", *files],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
