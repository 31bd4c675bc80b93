from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands import small_recipe
from foveal.cli import app
from samples import write_folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return small_recipe(tmp_path, "steps = 2", images=2)


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def test_a_trained_run_is_evaluated_at_several_budgets(recipe: Path, tmp_path: Path) -> None:
    code, out, _ = run("train", recipe, "--run", tmp_path / "run", "--json")
    assert code == 0
    assert Path(json.loads(out)["model"]).is_file()
    data = f"folder:{tmp_path / 'data'}"
    code, out, _ = run(
        "evaluate", tmp_path / "run", "--data", data, "--budget", 0.6, 0.9, "--timed", 1, "--json"
    )
    rows = json.loads(out)
    assert (code, [row["budget"] for row in rows]) == (0, [1.0, 0.6, 0.9])
    assert rows[0]["method"] == "dense"
    assert all(row["ms"] > 0 and row["macs"] > 0 for row in rows)


def test_rows_say_the_settings_that_they_differ_in(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", 1, (64, 96))
    words = ("evaluate", "camvid_rn18", "--data", f"folder:{folder}", "--method", "coarse_to_fine")
    words = (*words, "--budget", 0.9, "--schedule", "levels", "direct", "--timed", 0)
    code, out, error = run(*words, "--json")
    assert code == 0, error
    dense, first, second = json.loads(out)
    assert "settings" not in dense
    assert (first["settings"]["schedule"], second["settings"]["schedule"]) == ("levels", "direct")
    assert first["settings"]["tile"] == second["settings"]["tile"]
    table = run(*words)[1].splitlines()
    assert "with" in table[0] and "tile" not in table[0]
    assert any("schedule levels" in line for line in table)
    assert any("schedule direct" in line for line in table)


def test_a_run_is_not_overwritten_without_being_asked(recipe: Path, tmp_path: Path) -> None:
    assert run("train", recipe, "--run", tmp_path / "run")[0] == 0
    code, _, error = run("train", recipe, "--run", tmp_path / "run")
    assert code == 2
    assert "--resume" in error and len(error.strip().splitlines()) == 1
    assert run("train", recipe, "--run", tmp_path / "run", "--resume")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "camvit:x"), "did you mean 'camvid'"),
        (("--data", "camvid:/nowhere"), "/nowhere"),
        (("--budget", "2"), "budget is 2"),
        (("--method", "segblock"), "available"),
        (("--policy", "entropi"), "did you mean 'entropy'"),
        (("--tile", "20"), "multiple of 16"),
    ],
)
def test_what_cannot_be_evaluated_gets_one_sentence(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "data", 1, (64, 96))
    defaults = () if "--data" in words else ("--data", f"folder:{folder}")
    code, _, error = run("evaluate", "camvid_rn18", *defaults, *words)
    assert code == 2
    assert message in error and len(error.strip().splitlines()) == 1
