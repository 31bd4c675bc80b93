"""Nobody reaches for what another object keeps to itself: `x._name` is for self, cls, and the file of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import foveal

SOURCE = Path(foveal.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

PUBLIC = {"_replace", "_asdict", "_fields", "_make"}
"""Part of the interface of named tuples, which put a line before names that fields may not take."""

THIRD_PARTY = {
    "_forward_hooks": "torch.nn has no public way to ask whether a module has hooks",
    "_forward_pre_hooks": "as _forward_hooks",
    "_convolution_pointwise": "the fused convolution that PyTorch's compiler emits; its presence is checked",
    "_convolution": "an operation of the dispatcher, which is counted",
    "_upsample_bilinear2d_aa": "as _convolution",
    "_overloadpacket": "the operation of an overload, as PyTorch's own counter of FLOPs asks for it",
    "_version": "how often a tensor was written to in place; documented with autograd's saved tensors",
    "_reorder_convolution_weight": "as _convolution_pointwise",
}
"""Private names of other packages that are used, and why there is no other way."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree: ast.Module) -> set[str]:
    """Names that a file gives to something: functions, classes, variables, attributes of its own objects."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            found.add(node.attr)
    return found


def is_own(value: ast.expr) -> bool:
    """Whether an expression is self, cls or super()."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def reached_for(text: str) -> Iterator[str]:
    """Private names of others in a file: as attributes, and in imports."""
    tree = ast.parse(text)
    own = defined(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
            if node.attr not in own | PUBLIC | set(THIRD_PARTY):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"line {node.lineno}: {a.name}" for a in node.names if is_private(a.name))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_reaches_for_private_names(path: Path) -> None:
    assert not list(reached_for(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", THIRD_PARTY)
def test_every_exception_is_used(name: str) -> None:
    assert any(f".{name}" in path.read_text(encoding="utf-8") for path in FILES)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("layout._tables", ["line 1: layout._tables"]),
        ("def f(self): return self._x.y + super()._z() + cls._w", []),
        ("a.b()._c[0]", ["line 1: a.b()._c"]),
        ("from foveal.ops import _hidden", ["line 1: _hidden"]),
        ("class A:\n    def __init__(self): self._x = 0\ndef f(a): return a._x", []),
        ("row._replace(a=1).__class__", []),
    ],
)
def test_what_counts_as_reaching(text: str, found: list[str]) -> None:
    assert list(reached_for(text)) == found
