from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import foveal

SOURCE = Path(foveal.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
PEOPLE = {"__main__", "build", "cli", "config", "draw", "draw_chart", "draw_fit", "report", "report_fit"}
ENGINE = {"methods", "policies", "losses", "cost", "tiles", "ops", "models", "data", "fused"}
ALLOWED: dict[str, set[str]] = {
    "ops": set(),
    "models": set(),
    "data": set(),
    "losses": set(),
    "tiles": {"ops"},
    "policies": {"tiles", "ops"},
    "cost": {"tiles", "ops"},
    "fused": {"ops"},
    "methods": {"tiles", "ops", "policies", "losses", "cost", "models"},
    "engine": ENGINE,
}


def layer(path: Path) -> str:
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


def layers_used(path: Path) -> set[str]:
    parts = (name.split(".") for name in imports(path))
    return {part[1] for part in parts if len(part) > 1} - {layer(path)}


def ids(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", [f for f in FILES if layer(f) in ALLOWED], ids=ids)
def test_imports_go_one_way(path: Path) -> None:
    names = {
        name for name in layers_used(path) if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()
    }
    assert names <= ALLOWED[layer(path)]


@pytest.mark.parametrize("path", [f for f in FILES if layer(f) not in PEOPLE], ids=ids)
def test_only_what_people_see_imports_what_people_see(path: Path) -> None:
    assert not layers_used(path) & PEOPLE


@pytest.mark.parametrize("path", [f for f in FILES if layer(f) == "methods"], ids=ids)
def test_methods_do_not_know_one_another(path: Path) -> None:
    if path.name == "__init__.py":
        return
    names = {name.split(".")[2] for name in imports(path) if name.startswith("foveal.methods.")}
    files = {file.stem for file in path.parent.glob("*.py")}
    assert names & files <= {"segmenter"}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_every_folder_has_its_place_among_the_layers() -> None:
    folders = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert folders <= set(ALLOWED) | PEOPLE


def test_nothing_imports_what_makes_other_packages_work() -> None:
    assert not [path for path in FILES if "_compat" in layers_used(path)]


def test_relative_and_nested_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ops").mkdir()
    path = tmp_path / "ops" / "file.py"
    path.write_text("def f():\n    from ..tiles import plan\n    import foveal.data.image\n")
    monkeypatch.setattr("test_layers.SOURCE", tmp_path)
    assert layers_used(path) == {"tiles", "data"}
