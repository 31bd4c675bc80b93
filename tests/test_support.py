"""Tests share what is in `tests/support`, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SUPPORT = sorted((TESTS / "support").glob("*.py"))
FILES = sorted(TESTS.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the first part of every module name that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_tests_do_not_import_one_another(path: Path) -> None:
    others = {other.stem for other in FILES if other.stem.startswith("test_")} | {"conftest", "tests"}
    assert not imports(path) & others


@pytest.mark.parametrize("module", SUPPORT, ids=lambda path: path.stem)
def test_what_is_shared_is_used_by_several_files(module: Path) -> None:
    assert len([path for path in FILES if module.stem in imports(path)]) >= 2


def test_test_files_have_names_of_their_own() -> None:
    """Pytest imports them by their names alone."""
    names = [path.stem for path in FILES if path.stem != "conftest"]
    assert sorted(set(names)) == sorted(names)
