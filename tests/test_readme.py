from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import pytest
from typer.main import get_command

from foreign import UNet
from foveal.cli import app
from foveal.data.image import save_image
from foveal.data.synthetic import street

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    library = SimpleNamespace(
        Unet=lambda encoder, classes: UNet(3, classes)
    )  # the real one downloads weights
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", library)
    save_image(street(3, (180, 240))[0], tmp_path / "street.jpg")
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block.replace("repeat=10", "repeat=1"), {})
    assert "work" in capsys.readouterr().out


def test_every_command_and_option_named_exists() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    lines = [line.strip() for line in README.splitlines() if line.startswith("    foveal ")]
    named = [part.split() for line in lines for part in re.split(r"\s{2,}(?=foveal )", line)]
    assert len(named) >= 8
    for _, name, *rest in named:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        wanted = {word.strip("[]") for word in rest if word.strip("[]").startswith("--")}
        assert wanted <= options, name


def test_the_make_targets_exist() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    assert set(re.findall(r"make (\w+)", README)) <= targets


def test_files_that_are_linked_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    missing = [link for link in links if not (Path(__file__).parent.parent / link).exists()]
    assert not missing


def test_the_sentence_about_other_networks_has_the_figures_of_its_file() -> None:
    rows = json.loads((ROOT / "benchmarks" / "networks" / "networks.json").read_text())["rows"]
    ran = [row for row in rows if row["macs"] is not None]
    programs = sum(row["engine"] == "program" for row in ran)
    gains = {
        key: [row[key] / row["ms"] for row in ran if row["ms"] is not None and row.get(key)]
        for key in ("static_ms", "dense_ms")
    }
    static = gains["static_ms"]
    said = " ".join(README.split())
    assert f"became of {len(rows)} networks" in said
    assert f"{len(ran)} run at budget 0.4, {programs} of them as one native call" in said
    assert f"take {median(static):.1f} times less time than OpenVINO" in said
    assert f"median of {len(static)} ({min(static):.1f} to {max(static):.1f} times" in said
    assert f"{median(gains['dense_ms']):.1f} times less than PyTorch" in said
