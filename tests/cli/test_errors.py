"""Sentences on stderr, and figures that nothing defines."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from commands import refused, run
from foveal.evaluation.evaluate import evaluate
from foveal.methods import Dense
from foveal.reporting.rows import as_json
from samples import Scenes, nano


def test_sentences_are_bounded_and_cannot_command_the_terminal(tmp_path: Path) -> None:
    said = refused(run("show", tmp_path / "\x1b[31mred\x07.toml"))
    assert "\\x1b[31mred\\x07.toml" in said
    assert "\x1b" not in said
    assert len(refused(run("show", "a" * 5000))) <= 500


def test_images_of_which_no_pixel_counts_give_null() -> None:
    data = Scenes(1)
    nothing = torch.zeros(data[0][0].shape[1:], dtype=torch.bool)
    rows = evaluate(Dense(nano(len(data.classes))).eval(), data, [], 0, wanted=lambda index: nothing)
    found = json.loads(json.dumps(as_json(rows), allow_nan=False))[0]
    assert [found[key] for key in ("agreement", "miou", "pixel_accuracy")] == [None] * 3
