"""Running the command line in the tests' own process, with a small model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from foveal.cli import app
from foveal.data import synthetic
from foveal.data.dataset import default_palette
from foveal.hub.card import Card
from foveal.hub.checkpoint import save_model
from samples import nano, write_folder

CLASSES = ("sky", "road", "tree", "car", "person")

SMALL_BENCH = ("--size", "64x96", "--runtimes", "torch", "--repeat", 1, "--no-keep-memory")
"""Arguments of `foveal bench` that take little time."""


def small_model(folder: Path) -> Path:
    """Save a small network with fixed random weights."""
    card = Card("swiftnet_nano", CLASSES, default_palette(len(CLASSES)), training={"images": 3})
    return save_model(nano(len(CLASSES)), card, folder / "small.safetensors")


def small_recipe(folder: Path, train: str, images: int = 3, size: tuple[int, int] = (64, 96)) -> Path:
    """Write images with labels, and a recipe that trains a small network on them."""
    data = write_folder(folder / "data", images, size)
    path = folder / "tiny.toml"
    path.write_text(
        'model.name = "swiftnet_nano"\n'
        f'data = {{ train = "folder:{data}", crop = [64, 64] }}\n'
        f"train = {{ batch = 2, warmup = 1, {train} }}\n"
    )
    return path


def small_workplace(folder: Path, steps: int) -> None:
    """Write what every command needs: images with labels, a recipe, models of five and of eleven classes."""
    small_recipe(folder, f"steps = {steps}, average = 0.5, save_every = 1", size=(128, 128))
    small_model(folder)
    card = Card("swiftnet_nano", synthetic.CLASSES, default_palette(len(synthetic.CLASSES)))
    save_model(nano(len(synthetic.CLASSES)), card, folder / "tiny11.safetensors")


def run(*arguments: object) -> Result:
    """Run a command; the results of `segment` and `demo` must not change the allocator of the tests."""
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, words, prog_name="foveal")


def parsed(result: Result) -> Any:
    """Read the JSON of a command that succeeded."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result: Result) -> str:
    """Check that a command ended with one sentence and exit code 2; return the sentence."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("foveal: ")
    return lines[0].removeprefix("foveal: ")


def lines_of(text: str) -> list[dict[str, Any]]:
    """Read JSON that has a line for everything."""
    return [json.loads(line) for line in text.splitlines()]
