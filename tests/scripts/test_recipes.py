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
    "cityscapes_rn18": "f0fff067436be208",
    "cityscapes_rn18_segblocks": "7bed4cd25e843ced",
    "cityscapes_rn50": "09b66573f6348a67",
    "cityscapes_rn50_segblocks": "42fdf5dc7aacf8ad",
    "cityscapes_efflite1": "9bc5912dad6fb2d4",
    "cityscapes_efflite1_segblocks": "be5877e0de9098bb",
    "cityscapes_mobilenetv2": "c5befa8ffdac7cf6",
    "cityscapes_mobilenetv2_segblocks": "bc5d9e793b4ab30f",
    "cityscapes_nano": "3c86ad9da3a12a7a",
    "cityscapes_nano_segblocks": "ac851f8258116255",
    "camvid_rn18": "f0653b20131e8074",
    "camvid_rn18_segblocks": "c7fbe38347c4a597",
    "camvid_rn50": "a1d2d2f29a5fd394",
    "camvid_rn50_segblocks": "38cc0808aefbeaac",
    "camvid_efflite1": "ee3f0f223018ecce",
    "camvid_efflite1_segblocks": "44abcbfae3932b64",
    "camvid_mobilenetv2": "cbcc9c1d022da488",
    "camvid_mobilenetv2_segblocks": "7bba5fd26b84f154",
    "camvid_nano": "ee09c5a29bbf37d5",
    "camvid_nano_segblocks": "81e4502714e16efa",
    "mapillary_rn18": "5a84cbd75d6c1c10",
    "mapillary_rn18_segblocks": "ebff7fe034b8d0ce",
    "mapillary_rn50": "c92570a9e205170c",
    "mapillary_rn50_segblocks": "741be2a2d2fce864",
    "mapillary_efflite1": "90752517bf877074",
    "mapillary_efflite1_segblocks": "d0abca37ffacde1a",
    "mapillary_mobilenetv2": "82f0996a797aef78",
    "mapillary_mobilenetv2_segblocks": "274cb6883c71d122",
    "mapillary_nano": "135e29d58a1706c0",
    "mapillary_nano_segblocks": "f1f810632eb60012",
    "cityscapes_rn18_segblocks_code": "e1a277735fb44d93",
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
