"""The house: which folder may import which. Every arrow is named here, and no other exists."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import foveal

SOURCE = Path(foveal.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
ARROWS: dict[str, str] = {
    "storage": "",
    "geometry": "storage",
    "kernels": "storage geometry",
    "ops": "geometry kernels",
    "tiles": "storage geometry ops",  # storage: the memory of a video is a file
    "fusion": "storage ops",
    "models": "storage",
    "data": "storage",
    "cost": "storage geometry kernels",
    "compatibility": "storage geometry ops tiles models cost",
    "objectives": "storage",
    "policies": "storage geometry ops objectives",  # objectives: an online policy learns while it decides
    "exits": "storage fusion cost",
    "decoders": "storage cost exits",
    "gates": "storage kernels ops fusion cost",
    "routes": "storage fusion models",
    "program": "storage kernels ops tiles fusion models",
    # cost: an online policy counts against the budget, as a share of what its network takes
    "methods": "storage geometry kernels ops tiles fusion policies objectives exits decoders gates routes "
    "program cost",
    "hub": "storage cost models policies exits methods program data",
    "calibration": "storage geometry kernels ops tiles fusion policies objectives cost program methods "
    "hub data",
    "evaluation": "storage geometry ops tiles objectives cost methods data",
    "benchmark": "storage geometry kernels ops tiles fusion models data cost methods program hub calibration "
    "evaluation",
    # policies, program: a large image has one plan by a policy, and windows run under it
    "inference": "storage geometry ops tiles policies program data cost routes methods hub calibration",
    "adaptive": "storage geometry tiles compatibility fusion models data cost methods program hub "
    "calibration",
    "training": "storage tiles models data objectives policies exits methods hub calibration adaptive",
    "reporting": "storage geometry data models cost routes calibration benchmark evaluation inference",
}
"""For every folder the folders that it may import, lower floors only."""
TOP = {"cli", "__main__"}
"""May import everything, and is imported by nothing."""


def folder(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Dotted names of the modules of foveal that a file imports anywhere, also for types only."""
    package = ["foveal", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "foveal")


def folders_used(path: Path) -> set[str]:
    parts = (name.split(".") for name in imports(path))
    used = {part[1] for part in parts if len(part) > 1} - {folder(path)}
    return {name for name in used if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()}


def ids(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", [f for f in FILES if folder(f) not in TOP], ids=ids)
def test_imports_follow_the_arrows(path: Path) -> None:
    if path.parent != SOURCE:
        assert folders_used(path) <= set(ARROWS[folder(path)].split())


def test_arrows_point_downwards() -> None:
    floors = list(ARROWS)
    for name, below in ARROWS.items():
        assert all(floors.index(other) < floors.index(name) for other in below.split()), name


def test_every_folder_has_its_place() -> None:
    assert {path.parent.name for path in SOURCE.glob("*/__init__.py")} == set(ARROWS) | (TOP - {"__main__"})


@pytest.mark.parametrize("path", [f for f in FILES if folder(f) == "methods"], ids=ids)
def test_methods_do_not_know_one_another(path: Path) -> None:
    if path.name == "__init__.py":
        return
    names = {name.split(".")[2] for name in imports(path) if name.startswith("foveal.methods.")}
    files = {file.stem for file in path.parent.glob("*.py")}
    assert names & files <= {"base", "compiled_stages", "config", "frames", "prediction", "staged"}


def test_relative_and_nested_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ops", "tiles", "data"):
        (tmp_path / name).mkdir()
    path = tmp_path / "ops" / "file.py"
    path.write_text("def f():\n    from ..tiles import plan\n    import foveal.data.image\n")
    monkeypatch.setattr("test_layers.SOURCE", tmp_path)
    assert folders_used(path) == {"tiles", "data"}
