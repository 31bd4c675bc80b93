"""Plans as text and as files."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from PIL import Image

from foveal.geometry.plan import CELL, SKIP, Plan
from foveal.storage.schema import MOST_LEVEL
from samples import error_of
from strategies import plans


def test_drawing() -> None:
    plan = Plan(torch.tensor([[[1, 1, 0, SKIP], [1, 1, 0, 0]]]), 8, (16, 32))
    assert str(plan).splitlines() == [
        "tile 8, 16x32 px   █ full 38%   ▒ half 50%     skip 12%   work 0.500",
        "▒▒▒▒██  ",
        "▒▒▒▒████",
    ]


def test_drawing_of_several_images_has_a_picture_for_each() -> None:
    text = str(Plan(torch.tensor([[[2]], [[4]]]), 8, (8, 8)))
    assert text.endswith("░ quarter 50%   · 1/16 50%   work 1.000, 1.000\n\n░░\n\n··")


@given(plan=plans(skip=True))
def test_a_saved_plan_comes_back(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan.save(path)
    found = Plan.load(path)
    assert torch.equal(found.levels, plan.levels)
    assert (found.tile, found.size) == (plan.tile, plan.size)


GOOD = {"tile": 8, "size": [8, 16], "levels": [[[0, -1]]]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"tile": 8',
        "\xff\xfe",
        json.dumps({"tile": 8, "size": [8, 16]}),
        json.dumps(GOOD | {"size": [8]}),
        json.dumps(GOOD | {"size": 8}),
        json.dumps(GOOD | {"size": ["a", "b"]}),
        json.dumps(GOOD | {"tile": None}),
        json.dumps(GOOD | {"tile": 0}),
        json.dumps(GOOD | {"levels": None}),
        json.dumps(GOOD | {"levels": "abc"}),
        json.dumps(GOOD | {"levels": [[[0, 1], [0]]]}),
        json.dumps(GOOD | {"levels": [[[0, 300]]]}),
        json.dumps(GOOD | {"levels": [[[0, -7]]]}),
        json.dumps(GOOD | {"levels": []}),
        json.dumps(GOOD | {"levels": [[[0, 0, 0]]]}),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"plan\.json: no plan \("):
        Plan.load(path)


def test_a_good_file_of_the_same_kind_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(GOOD))
    assert Plan.load(path).levels.tolist() == [[[0, -1]]]


def test_a_file_has_its_members_under_their_names(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    Plan(torch.tensor([[[0, SKIP]]], dtype=torch.int8), 8, (8, 16)).save(path)
    assert json.loads(path.read_text()) == GOOD
    found = Plan.load(path)
    assert found.levels.dtype == torch.int8 and found.size == (8, 16)


def test_every_level_of_a_plan_comes_back_from_a_file_and_none_beyond(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"tile": 8, "size": [8, 8], "levels": [[[MOST_LEVEL]], [[SKIP]]]}))
    assert Plan.load(path).levels.flatten().tolist() == [MOST_LEVEL, SKIP]
    for levels in ([[[MOST_LEVEL + 1]]], [[[SKIP - 1]]], [[[0.0]]], [[[0], [MOST_LEVEL + 1]]]):
        path.write_text(json.dumps({"tile": 8, "size": [8, 8], "levels": levels}))
        assert error_of(lambda: Plan.load(path)) == (
            f"{path}: no plan (its levels are no whole numbers from {SKIP} to {MOST_LEVEL}); "
            "write it again with Plan.save"
        )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": [0, 16]}, "plan (size: no pair of sides ("),
        ({"size": [8, 16, 4]}, "plan (size: no pair of sides ("),
        ({"tile": 8.5}, "plan (tile: no side ("),
        ({"tile": 10**4}, "plan (tile: no side ("),
    ],
)
def test_the_member_that_is_wrong_is_named(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(GOOD | change))
    said = error_of(lambda: Plan.load(path))
    assert says in said and said.endswith("; write it again with Plan.save")
    assert error_of(lambda: Plan.load(tmp_path / "other.json")).startswith(
        f"{tmp_path}/other.json: no plan ("
    )


def test_a_notebook_shows_a_picture_an_image_full_resolution_light() -> None:
    levels = torch.tensor([[[1, 1, 0], [1, 1, SKIP]], [[2, 2, 2], [2, 2, 2]]], dtype=torch.int8)
    shown = Plan(levels, 8, (15, 20))._repr_html_()
    codes = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    tones = {SKIP: (24, 24, 28), 0: (235, 240, 255), 1: (117, 120, 127), 2: (58, 60, 63)}
    for code, cells in zip(codes, levels.tolist(), strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB")
        assert picture.size == (3 * CELL, 2 * CELL)
        for y, x in ((y, x) for y in range(2 * CELL) for x in range(3 * CELL)):
            assert picture.getpixel((x, y)) == tones[cells[y // CELL][x // CELL]]
    assert re.findall(r"<figcaption>(.*?)</figcaption></figure>", shown) == [
        f"tile 8, 15x20 px, work {64 * tiles / 300:.3f}" for tiles in (2, 1)
    ]
    assert shown.startswith("<figure") and "</figure><figure" in shown


def test_every_level_has_its_tone() -> None:
    levels = torch.arange(8, dtype=torch.int8).view(8, 1, 1)
    codes = re.findall(r'base64,([^"]+)"', Plan(levels, 8, (8, 8))._repr_html_())
    pictures = [Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB") for code in codes]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [
        (235 >> k, 240 >> k, 255 >> k) for k in range(8)
    ]


def test_levels_are_drawn_finest_first_and_what_is_skipped_last() -> None:
    levels = torch.tensor([[[SKIP]], [[3]], [[0]], [[1]], [[2]]], dtype=torch.int8)
    legend = str(Plan(levels, 8, (8, 8))).splitlines()[0]
    assert legend.startswith(
        "tile 8, 8x8 px   █ full 20%   ▒ half 20%   ░ quarter 20%   · 1/8 20%     skip 20%   "
    )
    assert legend.endswith("   work 0.000, 1.000, 1.000, 1.000, 1.000")
