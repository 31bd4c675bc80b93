"""What a scene of the review leaves behind: rows as JSON, a picture of both curves, a page, and an index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.benchmark.machine import describe_machine
from foveal.calibration.curves import Point, pareto
from foveal.storage.atomic import replacing, write_atomically
from studies.review.rows import DENSE, OTHER, STATIC, ReviewRow
from studies.review.settings import Review
from studies.segblocks.table import markdown

if TYPE_CHECKING:
    from studies.review.scenes import Scene

SIZE, DOTS = (8.0, 5.0), 120
"""Width and height of a drawing [inches], and its dots per inch."""
WHAT = ("method", "decides_for", "decides_from", "training")
MEASURED = (
    *("method", "budget", "work", "over", "miou", "lost", "beside_static", "in_time", "to_oracle"),
    *("ms", "faster", "kept", "steady", "flicker", "peak_mb"),
)
POINTS = ("miou", "lost", "beside_static", "in_time", "to_oracle", "steady", "flicker")
"""Columns that are read in percent, or points of it."""
HEADS = {
    "decides_for": "decides for",
    "decides_from": "from",
    "training": "must be trained",
    "over": "largest work above it",
    "miou": "mIoU [%]",
    "lost": "below dense",
    "beside_static": "above shrunk at equal work",
    "in_time": "at equal ms",
    "to_oracle": "below the oracle",
    "faster": "faster [x]",
    "kept": "time saved / work saved",
    "steady": "steady [%]",
    "flicker": "flicker [%]",
    "peak_mb": "peak [MB]",
}


def done(out: Path, name: str) -> bool:
    """Whether a scene was measured."""
    return (out / f"{name}.json").is_file()


def write_scene(
    review: Review, name: str, scene: Scene, rows: Sequence[ReviewRow], command: str, seconds: float
) -> None:
    """Write NAME.png, NAME.md and, last, NAME.json, by which a scene counts as measured."""
    here = {key: value for key, value in asdict(describe_machine()).items() if key != "command"}
    if any(row.ms is not None for row in rows):
        _draw(scene.title, rows, review.out / f"{name}.png")
    stored: dict[str, Any] = {
        "part": name,
        "title": scene.title,
        "command": command,
        "seconds": round(seconds, 1),
        **here,
        "review": review.said,
        "rows": [asdict(row) for row in rows],
    }
    write_atomically(review.out / f"{name}.md", page(scene.title, scene.note, rows, f"{name}.png"))
    write_atomically(review.out / f"{name}.json", json.dumps(stored, indent=1) + "\n")


def page(title: str, note: str, rows: Sequence[ReviewRow], picture: str) -> str:
    """Write a scene's page: what decides, what was measured, and the picture."""
    methods = {row.method: row for row in rows if not row.control}
    here = describe_machine()
    return "\n".join(
        [
            f"# {title}\n",
            f"{note}\n",
            markdown([_columns(row, WHAT) for row in methods.values()]),
            "",
            measured(rows),
            "",
            f"{here.machine}, {here.threads} threads, torch {here.torch}, f32.\n",
            *([f"![{title}]({picture})\n"] if any(row.ms is not None for row in rows) else []),
        ]
    )


def measured(rows: Sequence[ReviewRow]) -> str:
    """Write what was measured as a table; columns that no row has are left out."""
    known = [key for key in MEASURED if any(getattr(row, key) is not None for row in rows)]
    return markdown([_columns(row, known) for row in rows])


def _columns(row: ReviewRow, keys: Iterable[str]) -> dict[str, object]:
    return {HEADS.get(key, key): _said(row, key) for key in keys}


def _said(row: ReviewRow, key: str) -> object:
    value = getattr(row, key)
    if value is None or isinstance(value, str):
        return value
    if key in POINTS:
        return f"{100 * value:+.1f}" if key not in ("miou", "steady", "flicker") else f"{100 * value:.1f}"
    form = {"ms": ".1f", "work": ".3f", "over": "+.3f", "faster": ".2f", "kept": ".2f", "peak_mb": ".0f"}
    return f"{value:{form.get(key, 'g')}}"


def write_index(review: Review, scenes: Mapping[str, Scene], failed: Mapping[str, str]) -> Path:
    """Write README.md with the pages of all scenes that are there, and why others failed."""
    found = [name for name in scenes if done(review.out, name)]
    lines = ["# All methods, measured side by side", ""]
    lines += [f"- [{scenes[name].title}](#{name})" for name in found]
    lines += [f"- {name} failed: {sentence}" for name, sentence in failed.items()]
    for name in found:
        text = (review.out / f"{name}.md").read_text()
        lines += ["", f'<a id="{name}"></a>', "", text.replace("# ", "## ", 1).strip()]
    path = review.out / "README.md"
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def _draw(title: str, rows: Sequence[ReviewRow], path: Path) -> None:
    """Draw quality over work and over time, whole images as one curve."""
    figure = import_module("matplotlib.figure").Figure((2 * SIZE[0], SIZE[1]), layout="constrained")
    colours = import_module("matplotlib").colormaps["tab20"].colors
    names = list(dict.fromkeys(row.method for row in rows if row.name not in (STATIC, DENSE)))
    colour = {name: colours[k % len(colours)] for k, name in enumerate(names)}
    for number, (key, text) in enumerate(
        (("work", "work, a share of the dense network's"), ("ms", "time of an image [ms]"))
    ):
        axes = figure.add_subplot(1, 2, number + 1)
        shown = [row for row in rows if getattr(row, key) is not None and row.miou is not None]
        shown = [row for row in shown if key == "ms" or not (row.apart or row.name == OTHER)]
        whole = pareto(
            Point(getattr(row, key), row.miou or 0.0) for row in shown if row.name in (STATIC, DENSE)
        )
        axes.plot(
            [p.cost for p in whole], [100 * p.quality for p in whole], "k--", label="whole image, shrunk"
        )
        for method in dict.fromkeys(row.method for row in shown if row.name not in (STATIC, DENSE)):
            mine = sorted((getattr(row, key), 100 * (row.miou or 0)) for row in shown if row.method == method)
            control = next(row.control for row in shown if row.method == method)
            line = "x:" if control else "o-"
            axes.plot(*zip(*mine, strict=True), line, label=method, color=colour[method])
        axes.set_xlabel(text)
        axes.set_ylabel("mIoU [%]")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    with replacing(path) as part:
        figure.savefig(part, dpi=DOTS)
