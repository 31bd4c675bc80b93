"""Networks, trainings and images of a study."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foveal.data.dataset import Dataset, open_dataset
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model, save_model
from foveal.policies import PolicyNet
from reproduction import networks
from samples import error_of, nano
from studies.segblocks import Study
from studies.segblocks.images import spread, streets
from studies.segblocks.learned import budget_of, free, learned
from studies.segblocks.scenes import write_scenes
from studies.segblocks.trainings import toml


def test_a_budget_pays_for_the_decision_and_the_blocks(study: Study) -> None:
    model = networks(study).segblocks(0.4)
    assert model.parts["policy"].share > 0
    assert budget_of(model, 0.4) == pytest.approx(0.55 + model.parts["policy"].share)
    image = torch.rand(1, 3, 256, 256)
    plan = learned(model, budget_of(model, 0.5))(image).trace.plan
    assert plan is not None and plan.share(0) == 0.5


def test_a_free_policy_costs_nothing_and_the_model_is_left_as_it_was(study: Study) -> None:
    model = networks(study).segblocks(0.4)
    before = model.parts["policy"].share
    assert budget_of(free(model), 0.4) == pytest.approx(0.55)
    assert model.parts["policy"].share == before > 0


def test_a_model_without_a_policy_is_refused(study: Study, data: Dataset, tmp_path: Path) -> None:
    card = Card("swiftnet_nano", data.classes, data.palette)
    path = str(save_model(nano(len(data.classes)), card, tmp_path / "dense"))
    assert "not trained with a learned policy" in error_of(networks(replace(study, segblocks=(path,))).check)
    assert "no policy network" in error_of(lambda: learned(Model("dense", nano(), card)))


def test_a_model_of_other_classes_is_refused(study: Study, tmp_path: Path) -> None:
    card = Card("swiftnet_nano", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    path = str(save_model(nano(2), card, tmp_path / "two"))
    assert "knows 2 classes" in error_of(networks(replace(study, models=(path,))).check)


def test_policies_of_another_architecture_are_refused(study: Study) -> None:
    other = replace(study, models=(), network="swiftnet_rn18")
    assert "is a swiftnet_nano, and no such --model" in error_of(networks(other).check)


def test_every_network_is_loaded_once_and_new_ones_are_not_joined(study: Study) -> None:
    found = networks(study)
    assert found.segblocks(0.4) is found.segblocks(0.4)
    assert found.plain(0.4).network is not found.plain(0.4).network
    assert found.backbones == ("swiftnet_nano",) and list(found.seeds()) == [0, 1]
    assert found.targets() == (0.4, 0.2)


def test_what_is_missing_is_trained_once_and_kept(study: Study, tmp_path: Path) -> None:
    asked: list[str] = []

    def train(recipe: Path, folder: Path) -> Path:
        asked.append(recipe.read_text())
        (folder / "model.safetensors").write_bytes(Path(study.segblocks[0]).read_bytes())
        (folder / "model.json").write_bytes(Path(study.segblocks[0]).with_suffix(".json").read_bytes())
        return folder / "model.safetensors"

    bare = replace(study, out=tmp_path, models=(), segblocks=())
    assert networks(bare, train).segblocks(0.4).part(PolicyNet) is not None
    assert len(asked) == 2
    assert "frozen = true" in asked[1] and "seed0/model.safetensors" in asked[1]
    networks(bare, train).segblocks(0.4)
    assert len(asked) == 2
    other = replace(bare, policy_steps=7)
    assert "holds a run of other settings" in error_of(lambda: networks(other, train).segblocks(0.4))


def test_recipes_are_written_as_toml() -> None:
    recipe = {"": {"seed": 3}, "model": {"name": 'a "b"'}, "data": {"crop": [1, 2]}, "m": {"frozen": True}}
    expected = {"seed": 3, "model": {"name": 'a "b"'}, "data": {"crop": [1, 2]}, "m": {"frozen": True}}
    assert tomllib.loads(toml(recipe)) == expected


def test_scenes_make_a_data_set_and_are_drawn_once(tmp_path: Path) -> None:
    write_scenes(tmp_path, {"train": 1, "test": 2}, (48, 64))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    write_scenes(tmp_path, {"train": 1, "test": 2}, (48, 64))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    found = open_dataset(f"folder:{tmp_path}", "test")
    assert len(found) == 2 and len(found.classes) == 11
    assert not torch.equal(found[0][0], open_dataset(f"folder:{tmp_path}", "train")[0][0])


def test_images_are_taken_from_all_over_a_data_set(data: Dataset) -> None:
    many = replace(data, pairs=tuple(data.pairs[k % 3] for k in range(10)))
    assert spread(many, 2).pairs == (many.pairs[0], many.pairs[5])
    assert len(spread(data, 100)) == 3


def test_streets_are_other_scenes_and_always_alike() -> None:
    images, labels = streets(2, (48, 64))
    assert images.shape == (2, 3, 48, 64) and labels.shape == (2, 48, 64)
    assert not torch.equal(images[0], images[1])
    assert torch.equal(images[:1], streets(1, (48, 64))[0])
