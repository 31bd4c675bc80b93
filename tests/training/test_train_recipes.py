"""The recipes of the repository, and the keys of training in a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveal.models import MODELS
from foveal.training.build import build_run
from foveal.training.config import Recipe, RecipeError, read_recipe
from foveal.training.optim import OPTIMISERS, Schedule
from samples import write_folder

ROOT = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(ROOT.rglob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.model.name in MODELS
    assert path.read_text().startswith("# ")
    assert recipe.train.optimiser in OPTIMISERS


def test_defaults_are_what_they_were() -> None:
    train = Recipe().train
    assert (train.optimiser, train.betas, train.schedule_end) == ("adamw", (0.9, 0.999), 0.01)
    assert (train.policy_factor, train.encoder_decay_factor, train.save_every) == (1.0, 1.0, 250)
    assert train.evaluate == ""


def test_all_wrong_values_of_training_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        """
        [train]
        optimiser = "sgd"
        betas = [0.9, 1.0]
        schedule_end = 1.5
        save_every = 0
        encoder_factor = -1
        policy_factor = nan
        encoder_decay_factor = -0.5
        weight_decay = -1e-3
        warmup = -1
        """
    )
    with pytest.raises(RecipeError) as error:
        read_recipe(path)
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert lines[0].endswith(": 9 problems")
    assert set(lines[1:]) == {
        "train.optimiser   is 'sgd'; give 'adamw' or 'adam'",
        "train.betas.1   is 1.0; give less than 1",
        "train.schedule_end   is 1.5; give at most 1",
        "train.save_every   is 0; give at least 1",
        "train.encoder_factor   is -1; give at least 0",
        "train.policy_factor   is nan; give a finite number",
        "train.encoder_decay_factor   is -0.5; give at least 0",
        "train.weight_decay   is -0.001; give at least 0",
        "train.warmup   is -1; give at least 0",
    }


def test_what_a_recipe_says_reaches_the_schedule(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", 2, (48, 64))
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'model.name = "swiftnet_nano"\ndata = {{ train = "folder:{folder}", crop = [32, 32] }}\n'
    )
    wanted = {
        "optimiser": "adam",
        "betas": [0.5, 0.99],
        "policy_factor": 0.1,
        "encoder_decay_factor": 0.25,
        "schedule_end": 0.5,
        "save_every": 7,
    }
    overrides = [f"train.{key}={value}" for key, value in wanted.items()]
    schedule = build_run(read_recipe(path, overrides), tmp_path / "run")[2]
    assert (schedule.optimiser, schedule.betas, schedule.policy_factor) == ("adam", (0.5, 0.99), 0.1)
    assert (schedule.encoder_decay_factor, schedule.schedule_end, schedule.save_every) == (0.25, 0.5, 7)


def test_the_rate_ends_where_it_should() -> None:
    schedule = Schedule(1000, 4e-4, warmup=0, schedule_end=0.0025)
    assert schedule.rate(0) == 4e-4
    assert schedule.rate(1000) == pytest.approx(1e-6)
