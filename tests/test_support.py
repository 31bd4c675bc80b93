"""Tests share what is in `tests/support`, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

from foreign import UNet, lively
from foveal.compatibility import NetworkReport
from remembered import Remembered

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


def test_a_network_is_judged_again_where_anything_differs() -> None:
    """Its class, what it holds, a weight, the image or the tile; two that are made alike are one."""
    judged: list[object] = []

    def judge(network: nn.Module, *arguments: object) -> NetworkReport:
        judged.append((network, *arguments))
        return NetworkReport(str(len(judged)), 32, (), (), (), (), (), None, None, 0.4)

    class Mine(UNet):
        pass

    check, other = Remembered(judge), lively(UNet())
    with torch.no_grad():
        other.head.bias[0] += 1e-6  # type: ignore[union-attr, operator, index]
    several = [lively(UNet()), lively(UNet(mode="nearest")), lively(UNet(), seed=1), other]
    found = [check(network, (64, 64), 32, 3).network for network in [*several, lively(UNet())]]
    assert found == ["1", "2", "3", "4", "1"]
    assert [check(several[0], *more).network for more in (((64, 64), 16, 3), ((64, 96), 32, 3))] == ["5", "6"]
    for number in ("7", "8"):
        assert check(lively(Mine()), (64, 64), 32, 3).network == number, "it has no name to be found by"
