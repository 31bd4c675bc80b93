"""What an experiment leaves behind: rows as JSON, a picture, a page, and an index of all experiments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foveal.benchmark.machine import describe_machine
from foveal.storage.atomic import replacing, write_atomically
from studies.segblocks.experiment import Experiment, R
from studies.segblocks.rows import as_columns, as_keys
from studies.segblocks.study import Study
from studies.segblocks.table import markdown

SIZE, DOTS = (8.0, 5.0), 120
"""Width and height of a drawing [inches], and its dots per inch."""


def check_plots() -> None:
    """See that figures can be drawn, before anything is measured.

    Raises:
        ValueError: matplotlib is missing.
    """
    if find_spec("matplotlib") is None:
        raise ValueError("figures need matplotlib, which is not installed; pip install 'foveal'")


def write_experiment(
    study: Study, name: str, experiment: Experiment[R], rows: list[R], head: Mapping[str, Any]
) -> None:
    """Write NAME.png, NAME.md and, last, NAME.json, by which an experiment counts as done.

    Args:
        study: The settings.
        name: Name of the experiment.
        experiment: What was run.
        rows: What it measured.
        head: What the JSON file says of the run beside machine and settings.
    """
    study.out.mkdir(parents=True, exist_ok=True)
    if experiment.draws:
        _draw(experiment, rows, study.out / f"{name}.png")
    stored = [as_keys(row) for row in rows]
    found = {"title": experiment.title, **head, **machine(), "study": study.as_dict(), "rows": stored}
    write_atomically(study.out / f"{name}.md", _page(study, name, experiment, rows))
    write_atomically(study.out / f"{name}.json", json.dumps({"part": name, **found}, indent=1) + "\n")


def done(study: Study, name: str) -> bool:
    """Whether an experiment was written."""
    return (study.out / f"{name}.json").is_file()


def write_index(study: Study, names: Iterable[str], failed: Mapping[str, str]) -> Path:
    """Write README.md with the pages of all experiments that are there, and why others failed."""
    found = [name for name in names if done(study, name)]
    lines = ["# SegBlocks, reproduced", "", _setting(study), ""]
    if study.quick:
        lines += [
            "A quick run: networks are hardly trained. It shows that all experiments work, not what is true.",
            "",
        ]
    lines += [f"- [{_title(study, name)}](#{name})" for name in found]
    lines += [f"- {name} failed: {sentence}" for name, sentence in failed.items()]
    for name in found:
        text = (study.out / f"{name}.md").read_text()
        lines += ["", f'<a id="{name}"></a>', "", text.replace("# ", "## ", 1).strip()]
    path = study.out / "README.md"
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def machine() -> dict[str, Any]:
    """Describe machine, packages and commit, for JSON; the command is the study's own."""
    return {key: value for key, value in asdict(describe_machine()).items() if key != "command"}


def _draw(experiment: Experiment[R], rows: list[R], path: Path) -> None:
    figures = import_module("matplotlib.figure")  # an optional extra
    draws = experiment.draws
    figure = figures.Figure((SIZE[0] * len(draws), SIZE[1]), layout="constrained")
    for number, draw in enumerate(draws):
        axes = figure.add_subplot(1, len(draws), number + 1)
        draw(rows, axes)
        axes.grid(alpha=0.3)
    figure.suptitle(experiment.title, fontsize=10)
    with replacing(path) as part:
        figure.savefig(part, dpi=DOTS)


def _page(study: Study, name: str, experiment: Experiment[R], rows: list[R]) -> str:
    here = describe_machine()
    where = f"{here.machine}, {here.threads} threads, torch {here.torch}"
    table = markdown([as_columns(row) for row in experiment.table(rows)])
    lines = [f"# {experiment.title}", "", experiment.note, "", table, ""]
    lines += [f"{_setting(study)} {where}.", ""]
    if experiment.paper:
        lines += ["In the paper:", "", markdown([as_columns(row) for row in experiment.paper]), ""]
    if (study.out / f"{name}.png").is_file():
        lines += [f"![{experiment.title}]({name}.png)", ""]
    return "\n".join(lines)


def _setting(study: Study) -> str:
    """Say on what ours was measured."""
    height, width = study.scale
    images = "all images" if study.limit is None else f"at most {study.limit} images"
    data = f"{study.data} {study.split}" if study.data else f"generated street scenes of {width}x{height} px"
    dense = ", ".join(_short(Path(name)) for name in study.models)
    dense = dense or f"{study.network} trained here for {study.dense_steps} steps"
    policy = "given" if study.segblocks else f"trained here for {study.policy_steps} steps on fixed networks"
    networks = f"dense networks: {dense}; policies: {policy}"
    return f"Ours: {data}, {images}; {networks}; experiments of the engine at {width}x{height} px."


def _short(path: Path) -> str:
    """Name a model by its file, or by its run if the file has the name that all runs give."""
    return path.parent.name if path.stem == "model" else path.stem


def _title(study: Study, name: str) -> str:
    return str(json.loads((study.out / f"{name}.json").read_text())["title"])
