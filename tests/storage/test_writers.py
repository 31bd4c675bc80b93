"""Every file is written by the one writer: the package, and what lies beside it, is searched."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import foveal

SOURCE = Path(foveal.__file__).parent
ROOT = SOURCE.parents[1]
FOLDERS = "benchmarks", "examples", "scripts", "studies"
WRITER = SOURCE / "storage" / "atomic.py"
METHODS = {"write_text", "write_bytes", "savefig", "save_file", "tofile", "imwrite"}
"""Calls that write a file whatever they are called on."""
SAVES = {("torch", "save"), ("onnx", "export"), ("np", "save"), ("json", "dump"), ("shutil", "copyfile")}
ALLOWED = {
    "benchmark/peaks.py": "in a temporary folder that is gone at the end of the measurement",
    "inference/large/sink.py": "in the hidden folder of a run, until it is whole",
    "inference/video/sinks.py": "into a part that takes its place at the end, or a device or a pipe itself",
    "benchmark/runtimes/onnx_file.py": "in the temporary folder of a case",
    "storage/pictures.py": "into memory",
    "examples/embed/compare.py": "what the program in C is given, made anew by every run",
    "examples/large.py": "a part that becomes the image, made anew by every run",
    "examples/own_data.py": "the data and the recipe that a user has; an example is short",
}
"""Files that may write otherwise, and why."""
SWITCHES = {"RESET.write_text", "group.write_text"}
"""Switches of the kernel in /proc, no files on a disk."""
PICTURES = {"picture", "image", "sheet", "figure", "img"}
MADE = {"sheet", "fromarray", "convert", "resize"}
"""Calls that return a picture."""
UNSAFE_MODES = set("wax+")


def writes(path: Path) -> Iterator[str]:
    """Calls that write a file outside a `with replacing(...)`."""
    for node in outside(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        text, name = ast.unparse(node.func), ast.unparse(node.func).rpartition(".")[2]
        owner = text.rpartition(".")[0].rpartition(".")[2]
        picture = name == "save" and (owner in PICTURES or maker(node.func) in MADE)
        if text not in SWITCHES and (
            name in METHODS
            or (owner, name) in SAVES
            or picture
            or (name == "open" and UNSAFE_MODES & mode(node))
        ):
            yield f"{path.name}:{node.lineno} {ast.unparse(node)[:80]}"


def maker(save: ast.expr) -> str:
    """Name of the function whose result is saved; empty if it is no result."""
    made = save.value if isinstance(save, ast.Attribute) else None
    return ast.unparse(made.func).rpartition(".")[2] if isinstance(made, ast.Call) else ""


def outside(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those in the body of `with replacing(...)` or `with replacing_all(...)`."""
    yield tree
    if isinstance(tree, ast.With):
        called = {ast.unparse(item.context_expr).partition("(")[0] for item in tree.items}
        if called & {"replacing", "replacing_all"}:
            return
    for child in ast.iter_child_nodes(tree):
        yield from outside(child)


def mode(call: ast.Call) -> set[str]:
    """Letters of the mode of `open`: of builtins, of io and os (second argument), or of a path (first)."""
    given = [*call.args, *(key.value for key in call.keywords if key.arg == "mode")]
    return {
        letter
        for value in given
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and len(value.value) <= 3
        for letter in value.value
    }


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE if path.is_relative_to(SOURCE) else ROOT))


FILES = [
    path
    for folder in (SOURCE, *(ROOT / name for name in FOLDERS))
    for path in sorted(folder.rglob("*.py"))
    if path != WRITER
]


def test_nothing_writes_a_file_but_the_writer() -> None:
    found = [line for path in FILES if name_of(path) not in ALLOWED for line in writes(path)]
    assert not found, "\n".join(found)


def test_all_folders_are_searched() -> None:
    assert {name_of(path).split("/")[0] for path in FILES} >= {*FOLDERS, "storage", "cli"}


def test_every_exception_is_still_one() -> None:
    there = {name_of(path): path for path in FILES}
    assert not [name for name in ALLOWED if name != "storage/pictures.py" and not any(writes(there[name]))]


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text('x')",
        "path.write_bytes(b'x')",
        "open(path, 'w')",
        "path.open('wb')",
        "io.open(path, mode='a')",
        "picture.save(path)",
        "figure.savefig(path)",
        "sheet(lines, titles).save(path)",
        "Image.fromarray(np.ascontiguousarray(x.numpy())).save(path, 'PNG')",
        "torch.save(x, path)",
        "save_file(x, path)",
        "torch.onnx.export(x, path)",
    ],
)
def test_the_search_finds_what_it_is_for(line: str, tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(f"def f():\n    {line}\n")
    assert len(list(writes(path))) == 1
    path.write_text(f"def f():\n    with replacing(p) as part:\n        {line}\n")
    assert not list(writes(path))
    path.write_text("open(path)\nopen(path, 'rb')\npath.open()\nprogram.save(path)\n")
    assert not list(writes(path))
