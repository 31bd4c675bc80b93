"""Text that somebody else may have written: one sentence for whatever is wrong with it, in little time."""

from __future__ import annotations

import ast
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import foveal
from foveal.calibration.cost_model import CostModel
from foveal.calibration.profile import CalibrationProfile
from foveal.calibration.risk import RiskTable
from foveal.geometry.plan import Plan
from foveal.hub.card import Card
from foveal.program import spec
from foveal.storage import reading, schema
from foveal.storage.reading import parse_json, read_bounded, read_json, read_toml
from foveal.storage.schema import MOST_LEVEL, MOST_TILE, Tile, read_as
from foveal.storage.tensors import read_pickled, read_tensors
from foveal.training.config import RecipeError, read_recipe
from foveal.training.log import read_history

SOURCE = Path(foveal.__file__).parent
JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Expecting value"),
    "no UTF-8": (b'{"a": "\xff"}', "utf-8"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "nested"),
    "a little too deep": (b"[" * 40 + b"]" * 40, "nested more than 32 deep"),
    "NaN": (b'{"a": NaN}', "NaN is not finite"),
    "infinity": (b"[-Infinity]", "-Infinity is not finite"),
    "too large a float": (b"[1e400]", "1e400 is not finite"),
    "too large an integer": (b"[9223372036854775808]", "does not fit into 64 bits"),
    "an integer of many digits": (b"[" + b"9" * 5000 + b"]", "does not fit into 64 bits"),
    "half": (b'{"a": [1, 2', "Expecting"),
}
TOML: dict[str, tuple[bytes, str]] = {
    "no UTF-8": (b'a = "\xff"', "utf-8"),
    "deep": (b"a = " + b"[" * 5000 + b"]" * 5000, "nested"),
    "too large an integer": (b"a = 99999999999999999999", "64 bits"),
    "an integer of many digits": (b"a = " + b"9" * 5000, "digits"),
    "half": (b"a = [1,", "Invalid"),
}


CASES = [
    *((read_json, name, *JSON[name]) for name in JSON),
    *((read_toml, name, *TOML[name]) for name in TOML),
]


@pytest.mark.parametrize(("read", "case", "content", "says"), CASES)
def test_what_cannot_be_used(
    read: Callable[[Path, str], object], case: str, content: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"some\.file: no thing \(") as error:
        read(path, "thing")
    assert says in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 200


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path, "no regular file"),
        (tmp_path / "absent", "No such file"),
        (tmp_path / "a\0b", "null"),
    ):
        with pytest.raises(ValueError, match=says):
            read_json(path, "thing")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="more than 33554432 bytes"):
        read_json(path, "thing")
    assert read_bounded(Path(__file__), "test")[:3] == b'"""'


def test_good_values_stay_what_they_are() -> None:
    text = '{"a": [1, -2.5, "x", null, true, -9223372036854775808], "b": {"c": 1e300}}'
    assert parse_json(text, "here", "thing") == {
        "a": [1, -2.5, "x", None, True, -(1 << 63)],
        "b": {"c": 1e300},
    }
    assert parse_json("[NaN]", "here", "thing", finite=False)[0] != 0


def readers() -> list[tuple[str, ast.Call]]:
    """Calls of the libraries that parse JSON, TOML and safetensors, by file."""
    names = {
        "json.load",
        "json.loads",
        "tomllib.load",
        "tomllib.loads",
        "load_file",
        "safe_open",
        "torch.load",
    }
    calls = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                calls.append((str(path.relative_to(SOURCE)), node))
    return calls


ALLOWED = {
    ("storage/reading.py", "json.loads"),
    ("storage/reading.py", "tomllib.loads"),
    ("storage/tensors.py", "safe_open"),
    ("training/loop.py", "safe_open"),  # the step alone
    ("benchmark/peaks.py", "load_file"),  # what the process that called it wrote
    ("storage/tensors.py", "torch.load"),
    ("adaptive/source.py", "json.loads"),  # what it has just written
}


def test_files_are_read_in_one_place() -> None:
    assert {(file, ast.unparse(call.func)) for file, call in readers()} == ALLOWED


def refused_soon(what: Callable[[], object], says: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ValueError, match=says):
        what()
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"tile": 1, "size": [1, 1], "levels": [[[15]]]}', f"from -1 to {MOST_LEVEL}"),
        ('{"tile": 1, "size": [1, 1], "levels": [[[0.5]]]}', "no whole numbers"),
        ('{"tile": 1.5, "size": [1, 1], "levels": [[[0]]]}', "it is 1.5"),
        ('{"tile": true, "size": [1, 1], "levels": [[[0]]]}', "it is True"),
        ('{"tile": 5000, "size": [1, 1], "levels": [[[0]]]}', "less than or equal to 4096"),
        ('{"tile": 1, "size": [1, 1, 1], "levels": [[[0]]]}', "size"),
        ('{"tile": 1, "size": [1, 99999999], "levels": [[[0]]]}', "less than or equal to 1048576"),
        ('{"tile": 1, "size": [1, 1], "levels": [[[true]]]}', "no whole numbers"),
    ],
)
def test_plans(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    refused_soon(lambda: Plan.load(path), says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('"tile": 100000', "tile is 100000: input should be less than or equal to 4096"),
        ('"tile": true', "tile is True"),
        ('"max_level": 8', "max_level is 8"),
        ('"coarse_level": -1', "coarse_level is -1"),
        ('"policy": {"block": 128, "depth": 1000000}', "a policy network of 1000000 layers"),
        ('"policy": {"block": 128, "width": 1000000}', "width 1000000"),
        ('"policy": {"block": 16777216}', "block 16777216"),
        ('"training": 3', "training is 3"),
        ('"palette": [[0, 0, 256]]', "palette.0.2 is 256"),
        ('"palette": [[0, 0, 1.0]]', "palette.0.2 is 1.0"),
        (f'"classes": [{", ".join(["1"] * 3)}]', "classes.0 is 1"),
        (f'"classes": [{", ".join([chr(34) * 2] * 256)}]', "at most 255 items"),
        (f'"classes": ["{"a" * 2000}"]', "at most 1000 characters"),
    ],
)
def test_cards(change: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    start = '{"network": "swiftnet_nano", "classes": ["a"], "palette": [[0, 0, 0]], '
    path.write_text(start + change + "}")
    refused_soon(lambda: Card.read(path), says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[data]\ncrop = [100000, 100000]", "data.crop.0   is 100000; give at most 8192"),
        ("[data]\nscale = [0.5, 1e9]", "data.scale.1   is 1000000000.0; give at most 64"),
        ("[data]\nscale = [nan, 1.0]", "data.scale.0   is nan"),
        ("[train]\nbatch = 1000000", "train.batch   is 1000000; give at most 4096"),
        ("[train]\nsteps = 1000000000000", "train.steps"),
        ("[train]\nclass_balance = inf", "train.class_balance"),
        ("[model]\nchannels = 100000", "model.channels"),
        ("[method]\ntile = 100000", "method.tile"),
        ('[method]\nname = "segblocks"\npolicy_width = 1000000', "method.policy_width"),
        ('[method]\nname = "segblocks"\nbudgets = [0.2, inf]', "method.budgets"),
        ("seed = -1", "seed   is -1; give at least 0"),
        (f'[train]\nsteps = "{"a" * 5000}"', "train.steps"),
    ],
)
def test_recipes(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        read_recipe(path)
    assert says in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 200


@pytest.mark.parametrize(
    ("form", "state"),
    [
        (RiskTable, {"thresholds": [0.0], "works": [1.0], "losses": [[1e400]]}),
        (
            RiskTable,
            {"thresholds": [0.0], "works": [1.0], "losses": [[0.0]], "curve": {"gains": [], "losses": []}},
        ),
        (CalibrationProfile, []),
        (CalibrationProfile, {"weights": 3}),
        (CostModel, {"rows": [{"size": [0, 1], "dense_ms": 1, "runs": []}]}),
    ],
)
def test_what_is_measured(form: type, state: object) -> None:
    refused_soon(lambda: read_as(form, state, "here", "thing"), r"here: no thing \(")


def test_a_log_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0, "loss": NaN}\n{"step": 1, "lo')
    assert [row["step"] for row in read_history(tmp_path)] == [0]
    for wrong in (b"[" * 100_000, b"3", b'{"step": "a"}', b"\xff\xfe"):
        path.write_bytes(wrong + b"\n")
        with pytest.raises(ValueError, match=r"log\.jsonl: no log of a run"):
            read_history(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08", b"\xff" * 8, (1 << 62).to_bytes(8, "little"), (20).to_bytes(8, "little") + b"[" * 20],
)
def test_tensors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused_soon(lambda: read_tensors(path, "weights"), r"a\.safetensors: damaged, or no weights \(")
    with path.open("wb") as file:
        file.truncate(1 << 40)
    refused_soon(lambda: read_tensors(path, "weights"), "more than 8589934592 bytes")


def pickled(path: Path, change: Callable[[bytes], bytes] = bytes) -> str:
    """Return why a file that `torch.save` wrote is refused; nothing if it is read."""
    path.write_bytes(change(path.read_bytes()))
    try:
        read_pickled(path)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def test_what_torch_saved_is_read_where_its_checksums_are_right(tmp_path: Path) -> None:
    path, state = tmp_path / "a.pt", {"weight": torch.full((100,), 7.0), "steps": torch.tensor(3)}
    for content in (state, {"model": state}, {"state_dict": {"model": state}}):
        torch.save(content, path)
        assert read_pickled(path).keys() == state.keys()
    number = torch.full((2,), 7.0).numpy().tobytes()
    assert pickled(path, lambda data: data.replace(number, b"1" * 8, 1)).endswith("/data/0 is damaged")
    torch.save(state, path, _use_new_zipfile_serialization=False)  # as PyTorch did before 1.6
    assert read_pickled(path)["weight"].tolist() == [7.0] * 100
    for content in ([1], {3: torch.ones(1)}, torch.ones(2)):
        torch.save(content, path)
        assert pickled(path).endswith("no state dict")


def test_what_torch_saved_has_no_more_numbers_than_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    places = torch.zeros(1, 1, dtype=torch.int64)
    sparse = torch.sparse_coo_tensor(places, torch.ones(1), (1 << 40,), check_invariants=True)
    for many in (torch.ones(1).expand(1 << 40), sparse):
        torch.save({"weight": many}, path)
        assert pickled(path) == "'weight' has more numbers than the file"
    torch.save({"weight": torch.ones(1 << 16)}, path)
    with zipfile.ZipFile(path) as parts:
        content = {part.filename: parts.read(part) for part in parts.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as parts:
        for name, data in content.items():
            parts.writestr(name, data)
    assert pickled(path) == "it is packed; torch.save packs nothing"


def test_a_reason_is_one_short_line() -> None:
    assert reading.shorten("a\n b" * 1000).startswith("a ba ba")
    assert len(reading.shorten("a\n b" * 1000)) == reading.MOST_SAID
    assert read_as(Tile, MOST_TILE, "here", "tile") == MOST_TILE


def test_files_have_the_limits_of_programs() -> None:
    assert (schema.MOST_LEVEL, schema.MOST_TILE) == (spec.MOST_LEVELS - 1, spec.MOST_TILE)
