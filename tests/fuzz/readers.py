"""Every kind of file that is read, and what must be true of what was read from one that was changed.

Where a changed file is accepted, its content says what must come back: of JSON, TOML and lines what `json`,
`tomllib` and `split` find in the changed file, and nothing else. `pictures.py`, `rasters.py`, `trained.py`
and `records.py` say it of the others, and `orders.py` gives changed files to commands.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orders
import pictures
import rasters
import records
import trained
from targets import Target, as_json, same_as_said, says_json

from foveal.data.camvid import open_camvid
from foveal.data.folder import read_classes
from foveal.data.mapillary import open_mapillary
from foveal.geometry.plan import Plan
from foveal.training.config import read_recipe, stored_recipe
from foveal.training.log import read_history

RECIPE = b"""seed = 1
[model]
name = "swiftnet_nano"
[data]
crop = [64, 64]
scale = [0.5, 2.0]
[method]
name = "segblocks"
tile = 32
[train]
steps = 10
batch = 2
learning_rate = 1e-3
"""


def plan(folder: Path) -> Target:
    path = folder / "plan.json"
    Plan.uniform(1, (64, 96), 16, 1).save(path)

    def read() -> dict[str, Any]:
        found = Plan.load(path)
        assert (found.tiles >= 0).all()
        return {"tile": found.tile, "size": list(found.size), "levels": found.levels.tolist()}

    def says_plan(found: dict[str, Any], data: bytes) -> None:
        said = as_json(data)
        same_as_said(found, {key: said[key] for key in found})

    return Target(path, read, says_plan)


def recipe(folder: Path) -> Target:
    path = folder / "recipe.toml"
    path.write_bytes(RECIPE)
    return Target(
        path,
        lambda: read_recipe(path).as_dict(),
        lambda found, data: same_as_said(found, tomllib.loads(data.decode("utf-8"))),
    )


def stored(folder: Path) -> Target:
    path, given = folder / "recipe.json", folder / "recipe.toml"
    given.write_bytes(RECIPE)
    path.write_text(json.dumps(read_recipe(given).as_dict()))
    return Target(path, lambda: stored_recipe(path).as_dict(), says_json)


def classes(folder: Path) -> Target:
    path = folder / "classes.json"
    entries = [{"id": k, "name": name, "color": [k, 20 * k, 255]} for k, name in enumerate("abcde")]
    path.write_text(json.dumps({"classes": entries, "ignore_index": 200}))

    def says_classes(found: dict[str, Any], data: bytes) -> None:
        said = as_json(data)
        said = said if isinstance(said, dict) else {"classes": said}
        assert found["void"] == said.get("ignore_index")
        assert len(found["names"]) == len(found["palette"]) == len(said["classes"])
        for entry, name, colour in zip(
            sorted(said["classes"], key=lambda entry: entry["id"]),
            found["names"],
            found["palette"],
            strict=True,
        ):
            assert name == entry["name"] and list(colour) == entry.get("color", list(colour))

    return Target(path, lambda: read_classes(path)._asdict(), says_classes)


def mapillary(folder: Path) -> Target:
    path = folder / "config.json"
    path.write_text(json.dumps({"labels": [{"name": f"{k}", "color": [k, k, 3 * k]} for k in range(66)]}))
    for name in ("images", "labels"):
        (folder / "validation" / name).mkdir(parents=True)
    png = pictures.encoded("png")
    (folder / "validation" / "images" / "a.jpg").write_bytes(png)
    (folder / "validation" / "labels" / "a.png").write_bytes(png)

    def says_labels(found: dict[str, Any], data: bytes) -> None:
        said = as_json(data)["labels"][:65]
        assert found["classes"] == [entry.get("readable", entry["name"]) for entry in said]
        assert found["palette"] == [entry["color"] for entry in said]
        assert all(0 <= value <= 255 for colour in found["palette"] for value in colour)

    def read() -> dict[str, Any]:
        found = open_mapillary(folder, "val")
        return {"classes": list(found.classes), "palette": [list(colour) for colour in found.palette]}

    return Target(path, read, says_labels)


def split(folder: Path) -> Target:
    path, names = folder / "splits" / "val.txt", [f"{k:04d}" for k in range(20)]
    for name in ("images", "labels", "splits"):
        (folder / name).mkdir()
    for name in names:
        (folder / "images" / f"{name}.png").touch()
        (folder / "labels" / f"{name}.png").touch()
    path.write_text("\n".join(names))

    def says_names(found: list[str], data: bytes) -> None:
        assert found == data.decode("utf-8").split()

    return Target(path, lambda: [pair.image.stem for pair in open_camvid(folder, "val").pairs], says_names)


def log(folder: Path) -> Target:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps({"step": k, "loss": 0.5}) + "\n" for k in range(5)))

    def says_lines(found: list[dict[str, float]], data: bytes) -> None:
        lines = [
            line for line in data.decode(errors="replace").splitlines(keepends=True) if line.endswith("\n")
        ]
        assert len(found) == len(lines)
        for row, line in zip(found, lines, strict=True):
            said = json.loads(line)
            assert row.keys() == said.keys()
            assert all(row[k] == said[k] or (math.isnan(row[k]) and math.isnan(said[k])) for k in row)

    return Target(path, lambda: read_history(folder), says_lines)


KINDS: dict[str, Callable[[Path], Target]] = {
    "plan": plan, "recipe": recipe, "recipe of a run": stored, "log": log, "classes": classes,
    "classes of Mapillary": mapillary, "split of CamVid": split,
    **pictures.KINDS, **trained.KINDS, **records.KINDS, **rasters.KINDS,
    **orders.KINDS,
}  # fmt: skip
