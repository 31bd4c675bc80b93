"""Plans as text and as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given

from foveal.geometry.plan import SKIP, Plan
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
