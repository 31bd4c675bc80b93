"""The recipes that `scripts/recipes.py` writes."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import pytest

from foveal.training.config import read_recipe
from scripts.recipes import DATA, main, names, recipe

DIGESTS = {
    "cityscapes_rn18": "b8a7b3d1edcf09bd",
    "cityscapes_rn18_segblocks": "407a039b4f3af4a3",
    "cityscapes_rn50": "a9e2166518381b08",
    "cityscapes_rn50_segblocks": "e81c5622535d649e",
    "cityscapes_efflite1": "7a2382a37d03db81",
    "cityscapes_efflite1_segblocks": "7db14da403297202",
    "cityscapes_mobilenetv2": "f494782981e7aad8",
    "cityscapes_mobilenetv2_segblocks": "d82fbb36a5d95357",
    "cityscapes_nano": "a4e9719b22c6fe61",
    "cityscapes_nano_segblocks": "4fffdaa52885ba78",
    "camvid_rn18": "74b6a621baa3e5ef",
    "camvid_rn18_segblocks": "c435a0e690706d59",
    "camvid_rn50": "3134c69159886521",
    "camvid_rn50_segblocks": "d0642c55a2d05193",
    "camvid_efflite1": "0048c5a0fa3f3466",
    "camvid_efflite1_segblocks": "e10c66766fdef8ab",
    "camvid_mobilenetv2": "9cd75ff05b5910dc",
    "camvid_mobilenetv2_segblocks": "7588abcc15fcc854",
    "camvid_nano": "b4c4caaf80eab490",
    "camvid_nano_segblocks": "1570c825ad26a4e6",
    "mapillary_rn18": "ae3eeaad6778234e",
    "mapillary_rn18_segblocks": "462103e9d1a2488a",
    "mapillary_rn50": "dc3e1f8259abee11",
    "mapillary_rn50_segblocks": "a0d418a530f5c01c",
    "mapillary_efflite1": "a0d56d436b90fa0c",
    "mapillary_efflite1_segblocks": "7835deb92e4c4eaf",
    "mapillary_mobilenetv2": "af3984c5d905f537",
    "mapillary_mobilenetv2_segblocks": "5241bcd735dd55fe",
    "mapillary_nano": "edca7ea9c859cb4e",
    "mapillary_nano_segblocks": "f36d2e5deeb12244",
    "cityscapes_rn18_segblocks_code": "a47335eb3050950a",
}
"""SHA-256, its first 16 digits, of the values that every recipe was reviewed with (sorted JSON)."""


def test_there_is_one_recipe_of_every_data_set_network_and_method() -> None:
    assert names() == list(DIGESTS)


@pytest.mark.parametrize("name", names())
def test_values_are_those_that_were_reviewed(name: str) -> None:
    values = json.dumps(tomllib.loads(recipe(name)), sort_keys=True)
    assert hashlib.sha256(values.encode()).hexdigest()[:16] == DIGESTS[name]


@pytest.mark.parametrize("name", names())
def test_every_recipe_is_valid_and_has_the_lengths_and_rates_of_the_paper(name: str, tmp_path: Path) -> None:
    assert main([name, "--out", str(tmp_path)]) == 0
    found, (data, network, *_) = read_recipe(tmp_path / f"{name}.toml"), name.split("_")
    assert found.train.steps == DATA[data].images * DATA[data].epochs // found.train.batch
    assert found.train.learning_rate * found.train.schedule_end == pytest.approx(1e-6)
    assert found.model.name == f"swiftnet_{network}"
    assert found.data.train.startswith(f"{data}:")


def test_one_recipe_goes_to_stdout_and_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["camvid_nano"]) == 0
    assert capsys.readouterr().out == recipe("camvid_nano")
    with pytest.raises(SystemExit) as refused:
        main(["camvid_rn19"])
    assert refused.value.code == 2
    assert "no recipe 'camvid_rn19'; --list prints the names" in capsys.readouterr().err
