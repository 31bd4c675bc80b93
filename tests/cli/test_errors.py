"""What commands write: names that others chose, sentences on stderr, and figures that nothing defines."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import foveal.cli
from commands import parsed, refused, run
from foveal.data.dataset import default_palette
from foveal.data.image import save_image
from foveal.data.synthetic import street
from foveal.evaluation.evaluate import evaluate
from foveal.hub.card import Card
from foveal.hub.checkpoint import save_model
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


HOSTILE = "\x1b[2J\x1b[31mroad\x07\x9b8m\u202e\nfoveal: all is well"
"""Clears the screen, colours, rings, hides, turns the direction, and writes a line of ours."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model whose classes and history command the terminal, and an image with such a name."""
    folder = tmp_path_factory.mktemp("hostile")
    card = Card("swiftnet_nano", (HOSTILE,) * 5, default_palette(5), training={HOSTILE: HOSTILE})
    image = folder / f"{HOSTILE}.png"
    save_image(street(0, (64, 96))[0], image)
    return save_model(nano(5), card, folder / "small.safetensors"), image


def test_names_in_ordinary_output_cannot_command_the_terminal(
    hostile: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, image = hostile
    segment = "segment", image, "--model", model, "--no-keep-memory", "--out", tmp_path
    for words in (("show", model), segment, ("segment", image.parent, *segment[2:])):
        result = run(*words)
        assert result.exit_code == 0, result.output
        assert "road" in result.stdout
        for text in (result.stdout, result.stderr):
            assert all(c.isprintable() or c == "\n" for c in text)
            assert not any(line.startswith("foveal: all is well") for line in text.splitlines())
    for words in (("show", model, "--json"), (*segment, "--json")):
        result = run(*words)
        assert all(c.isprintable() or c == "\n" for c in result.stdout)
        assert json.dumps(HOSTILE)[1:-1] in json.dumps(parsed(result))  # and it says the same


def test_all_text_is_written_in_one_place() -> None:
    files = Path(foveal.cli.__file__).parent.glob("*.py")
    assert [file.name for file in files if "typer.echo(" in file.read_text()] == ["errors.py"]


READ = """
import sys
from foveal.data.image import ImageError, read_image
for path in sys.argv[1:]:
    try:
        read_image(path)
    except ImageError as error:
        print(error, file=sys.stderr)
"""


def damaged_array(path: Path, old: bytes, new: bytes) -> str:
    """Write an array whose header is damaged, of which NumPy or Python warns; return what is warned of."""
    np.save(path, np.zeros((24, 32), np.uint8))
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with pytest.raises((ValueError, SyntaxError)):
            np.load(path)
    return str(heard[0].message)


def test_what_pillow_and_numpy_warn_of_is_not_heard(tmp_path: Path) -> None:
    noise = Image.effect_noise((40, 30), 50)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0\x01"
    noise.save(tmp_path / "exif.jpg", exif=exif)
    noise.convert("P").save(tmp_path / "palette.png", transparency=bytes(range(256)))
    damages = {"a.npy": (b"(24, 32)", b"(24L,92)"), "b.npy": (b"(24, 32)", b"(2or 432)")}
    heard = [damaged_array(tmp_path / name, *damage) for name, damage in damages.items()]
    assert heard[0].startswith("Reading `.npy`") and heard[1] == "invalid decimal literal"
    files = [str(tmp_path / name) for name in ("exif.jpg", "palette.png", *damages)]
    with pytest.warns(UserWarning), Image.open(files[0]) as image:  # this is what would be heard
        image.getexif()
    command = [sys.executable, "-W", "default::UserWarning", "-c", READ, *files]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said = done.stderr.splitlines()
    assert len(said) == len(damages)
    for line, name in zip(said, damages, strict=True):
        assert line.startswith(f"{tmp_path / name} is no array, or damaged (")
