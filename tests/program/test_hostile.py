"""Damaged files: refused with a reason, or run; never a crash, and the same in C and in Python."""

from __future__ import annotations

import ctypes
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from families import DENSE_MODULES, EveryStep
from foreign import lively
from foveal.kernels import build
from foveal.program import Program, ProgramInfo, compile_network, load_program
from foveal.program.quantise import find_scales, in_int8
from foveal.program.spec import (
    APPLY,
    BINS,
    BY_FACTOR,
    COMPOSE,
    CONVOLVE,
    CUT,
    DEPTHWISE,
    FUNCTIONS,
    GRID_SPREAD,
    GROUP_NORM,
    LAYER_NORM,
    MEAN,
    MULTIPLY,
    OFFSET,
    RESAMPLE,
    STEP_NAMES,
    TILED,
    WHOLE,
    Head,
    MapSpec,
    StepSpec,
    native,
)
from samples import nano

SEEDS = {"nano": 60, "every step": 300}
SANITIZE = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
BUILD_WITHOUT_TORCH = "import sys; from foveal.kernels.build import build; print(build(extra=sys.argv[1:]))"
"""Without OpenMP, and kept in the cache: compiled anew when a source changes."""
INFO = ProgramInfo("tiny", tuple("abcde"), tuple((k, k, k) for k in range(5)))


@cache
def exported(name: str, precision: str) -> bytes:
    """Return the file of a network of five classes."""
    torch.manual_seed(0)
    network, multiple = (nano(), 1) if name == "nano" else (lively(EveryStep()), 8)
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    program = compile_network(network, DENSE_MODULES.get(name), multiple)
    if precision == "int8":
        program = in_int8(program, find_scales(program, [image.numpy()]))
    with tempfile.TemporaryDirectory() as folder:
        Program(program.tables, INFO).save(Path(folder, "program"))
        return Path(folder, "program").read_bytes()


@pytest.fixture(params=["f32", "int8"])
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def file(precision: str, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.foveal"
    path.write_bytes(exported("every step", precision))
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver and all kernels, watched by sanitizers."""
    compiler = shutil.which("gcc") or pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    words = [compiler, *SANITIZE, str(folder / "empty.c"), "-o", str(folder / "empty")]
    if (
        subprocess.run(words, check=False, capture_output=True).returncode
        or subprocess.run([str(folder / "empty")], check=False, capture_output=True).returncode
    ):
        pytest.skip("gcc has no sanitizers here")
    words = [sys.executable, "-c", BUILD_WITHOUT_TORCH, *SANITIZE]
    built = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    driver, made = Path(__file__).with_name("hostile.c"), str(folder / "hostile")
    words = [
        compiler,
        *SANITIZE,
        f"-I{build.HEADERS}",
        str(driver),
        built,
        f"-Wl,-rpath,{Path(built).parent}",
    ]
    words += ["-o", made]
    subprocess.run(words, check=True)
    return folder / "hostile"


@pytest.mark.parametrize("name", ["nano", "every step"])
def test_damaged_files_are_refused_or_run(name: str, file: Path, precision: str, hostile: Path) -> None:
    file.write_bytes(exported(name, precision))
    done = subprocess.run(
        [str(hostile), str(file), str(SEEDS[name])], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.fullmatch(r"(\d+) refused, (\d+) ran\n", done.stdout)
    assert found is not None
    refused, ran = int(found[1]), int(found[2])
    assert refused + ran == 1 + 200 + SEEDS[name]
    assert refused > 200 and ran > SEEDS[name] // 30


def refusal(path: Path) -> str:
    """Load a file in C and in Python; return why C refuses it, and see that Python does too."""
    error = ctypes.create_string_buffer(256)
    library = native()
    library.foveal_load.restype = ctypes.c_void_p
    library.foveal_free.argtypes = [ctypes.c_void_p]
    program = library.foveal_load(str(path).encode(), error, ctypes.c_size_t(len(error)))
    library.foveal_free(program)
    if program:
        load_program(path)
        return ""
    with pytest.raises(ValueError, match="holds no program of this version"):
        load_program(path)
    return error.value.decode()


def parts(data: bytes) -> tuple[dict[str, object], bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def whole(header: dict[str, object], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def with_metadata(change: Callable[[dict[str, str]], object]) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        header, tables = parts(data)
        change(header["__metadata__"])  # type: ignore[arg-type]
        return whole(header, tables)

    return damage


def with_info(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def edit(metadata: dict[str, str]) -> None:
        info = json.loads(metadata["info"])
        change(info)
        metadata["info"] = json.dumps(info)

    return with_metadata(edit)


def with_entry(name: str, key: str, value: object) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        header, tables = parts(data)
        header[name][key] = value  # type: ignore[index]
        return whole(header, tables)

    return damage


def with_tables(change: Callable[[Head, ctypes.Array, ctypes.Array], object]) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        header, tables = parts(data)
        held = bytearray(tables)
        head = Head.from_buffer(held)
        maps = (MapSpec * head.maps).from_buffer(held, ctypes.sizeof(head))
        steps = (StepSpec * head.steps).from_buffer(held, ctypes.sizeof(head) + ctypes.sizeof(maps))
        change(head, maps, steps)
        return whole(header, bytes(held))

    return damage


def on_step(name: str, value: float, kind: int = CONVOLVE) -> Callable[[bytes], bytes]:
    """Set a field of the last step of a kind."""

    def change(head: Head, maps: ctypes.Array, steps: ctypes.Array) -> None:
        setattr([s for s in steps if s.kind == kind][-1], name, value)

    return with_tables(change)


def on_slopes(value: int) -> Callable[[bytes], bytes]:
    """Move the slopes per channel of the step that has some."""

    def change(head: Head, maps: ctypes.Array, steps: ctypes.Array) -> None:
        prelu = FUNCTIONS.index("prelu")
        next(s for s in steps if s.kind == APPLY and s.function == prelu).residual_scale = value

    return with_tables(change)


def on_whole(**fields: int) -> Callable[[bytes], bytes]:
    """Set fields of the first whole map whose sides are a share of the image's."""

    def change(head: Head, maps: ctypes.Array, steps: ctypes.Array) -> None:
        found = next(m for m in maps if m.down)
        for name, value in fields.items():
            setattr(found, name, value)

    return with_tables(change)


def whole_to(kind: int, end: str, **fields: int) -> Callable[[bytes], bytes]:
    """Give the whole map at an end of the first step of a kind other sides."""

    def change(head: Head, maps: ctypes.Array, steps: ctypes.Array) -> None:
        step = next(s for s in steps if s.kind == kind and maps[getattr(s, end)].kind == WHOLE)
        for name, value in fields.items():
            setattr(maps[getattr(step, end)], name, value)

    return with_tables(change)


def on_whole_step(kind: int, name: str, value: int) -> Callable[[bytes], bytes]:
    """Set a field of the first step of a kind that reads a whole map."""

    def change(head: Head, maps: ctypes.Array, steps: ctypes.Array) -> None:
        setattr(next(s for s in steps if s.kind == kind and maps[s.input].kind == WHOLE), name, value)

    return with_tables(change)


def on_map(name: str, value: int, kind: int) -> Callable[[bytes], bytes]:
    """Set a field of the last map of a kind."""

    def change(head: Head, maps: ctypes.Array, steps: ctypes.Array) -> None:
        setattr([m for m in maps if m.kind == kind][-1], name, value)

    return with_tables(change)


def to_another(end: str, kind: int, wanted: Callable[[MapSpec, MapSpec], bool]) -> Callable[[bytes], bytes]:
    """Let the last step of a kind read or write another map that is there: the first one that is wanted."""

    def change(head: Head, maps: ctypes.Array, steps: ctypes.Array) -> None:
        at, step = [(k, s) for k, s in enumerate(steps) if s.kind == kind][-1]
        own, apart = maps[step.input], {head.input, head.output, step.input, step.other, step.out}
        written = [s.out for s in steps[:at]]
        setattr(step, end, next(k for k in written if k not in apart and wanted(maps[k], own)))

    return with_tables(change)


def reduce_by_factor(head: Head, maps: ctypes.Array, steps: ctypes.Array) -> None:
    next(s for s in steps if s.kind == RESAMPLE and not s.factor).function |= BY_FACTOR


CASES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda data: b"", "cut short"),
    "a header without end": (lambda data: b"\xff" * 7 + b"\x7f" + data, "header is too large"),
    "no JSON": (lambda data: data[:8] + b"!" + data[9:], "no JSON object"),
    "bytes behind": (lambda data: data + b"0", "behind its tables"),
    "half": (lambda data: data[: len(data) // 2], "cut short"),
    "another version": (with_metadata(lambda m: m.update(version="9")), "another version"),
    "another format": (with_metadata(lambda m: m.update(format="x")), "format is not"),
    "names of fewer steps": (with_metadata(lambda m: m.update(names="[]")), "name its steps"),
    "info that is no JSON": (with_metadata(lambda m: m.update(info="{")), "info is no JSON"),
    "unknown info": (with_info(lambda i: i.update(more=1)), "four members"),
    "fewer classes": (with_info(lambda i: i["classes"].pop()), "proper classes"),
    "a colour beyond bytes": (with_info(lambda i: i["palette"][0].__setitem__(0, 256)), "proper palette"),
    "an odd tile": (with_info(lambda i: i["run"].update(tile=3)), "proper tile"),
    "no gain": (with_info(lambda i: i["run"].update(level_gain=[])), "proper level_gain"),
    "no scale": (with_info(lambda i: i["run"].update(scale=0)), "proper scale"),
    "a scale above 1": (with_info(lambda i: i["run"].update(scale=1.5)), "proper scale"),
    "another score": (with_info(lambda i: i["run"].update(segblocks_score="x")), "proper segblocks_score"),
    "a place before the file": (with_entry("maps", "data_offsets", [-64, 0]), "one behind the other"),
    "a place beyond it": (with_entry("numbers", "data_offsets", [0, 1 << 50]), "one behind the other"),
    "another shape": (with_entry("head", "shape", [33]), "another size"),
    "another type": (with_entry("numbers", "dtype", "F64"), "another type"),
    "more maps": (with_tables(lambda h, m, s: setattr(h, "maps", h.maps + 1)), "belong together"),
    "no stride": (with_tables(lambda h, m, s: setattr(h, "coarsest_stride", 0)), "coarsest stride is 0"),
    "300 classes": (with_tables(lambda h, m, s: setattr(h, "classes", 300)), "300 classes"),
    "a wide map": (with_tables(lambda h, m, s: setattr(m[5], "channels", 1 << 20)), "map 5 cannot be"),
    "a map without scale": (with_tables(lambda h, m, s: setattr(m[5], "scale", 0.0)), "map 5 cannot be"),
    "a map that is not there": (on_step("input", 10**6), "map that is not there"),
    "a map that comes later": (
        with_tables(lambda h, m, s: setattr(s[0], "input", s[h.steps - 1].out)),
        "before it is written",
    ),
    "weights beyond the end": (on_step("weight", 1 << 40), "beyond the numbers"),
    "weights before the start": (on_step("weight", -2), "beyond the numbers"),
    "a bias at the end": (on_step("bias", (1 << 63) - 1), "beyond the numbers"),
    "a window that is too large": (on_step("rows", 65), "does not fit its maps"),
    "a kind that is none": (on_step("kind", 99), "does not fit its maps"),
}

DOES_NOT_FIT: dict[str, Callable[[bytes], bytes]] = {
    "a function that is none": on_step("function", 10, APPLY),
    "no function": on_step("function", 0, APPLY),
    "a function before the first": on_step("function", -1, APPLY),
    "a slope without end": on_step("before_low", math.inf, APPLY),
    "a function of two maps": on_step("other", 0, APPLY),
    "a function that looks around": on_step("rows", 3, APPLY),
    "a function that writes further on": on_step("at", 1, APPLY),
    "a function between strides": to_another("input", APPLY, lambda m, own: m.stride != own.stride),
    "a product of one map": on_step("other", -1, MULTIPLY),
    "a product of strides": to_another("other", MULTIPLY, lambda m, own: m.stride < own.stride),
    "a sum of one map": on_step("other", -1, OFFSET),
    "a sum of strides": to_another("other", OFFSET, lambda m, own: m.stride < own.stride),
    "a sum into a vector": to_another("out", OFFSET, lambda m, own: m.kind == BINS),
    "a norm of a negative variance": on_step("before_low", -1.0, LAYER_NORM),
    "a norm without end": on_step("before_low", math.inf, LAYER_NORM),
    "a norm of two maps": on_step("other", 0, LAYER_NORM),
    "a norm between strides": to_another("input", LAYER_NORM, lambda m, own: m.stride != own.stride),
    "no groups": on_step("factor", 0, GROUP_NORM),
    "groups before the first": on_step("factor", -4, GROUP_NORM),
    "groups that do not divide": on_step("factor", 3, GROUP_NORM),
    "more groups than channels": on_step("factor", 16, GROUP_NORM),
    "groups of a negative variance": on_step("before_low", -1e-5, GROUP_NORM),
    "statistics of a vector": to_another("input", GROUP_NORM, lambda m, own: m.kind == BINS),
    "a mean of two maps": on_step("other", 0, MEAN),
    "a mean of a vector": to_another("input", MEAN, lambda m, own: m.kind == BINS),
    "a mean of other channels": to_another("input", MEAN, lambda m, own: m.channels != own.channels),
    "a mean that is a map": to_another("out", MEAN, lambda m, own: m.kind == TILED),
    "a resampling by nothing": on_step("factor", -1, RESAMPLE),
    "a resampling by too much": on_step("factor", 65, RESAMPLE),
    "a resampling by another factor": on_step("factor", 3, RESAMPLE),
    "a reduction by a factor": with_tables(reduce_by_factor),
    "a resampling that is none": on_step("function", 8, RESAMPLE),
    "a resampling before the first": on_step("function", -1, RESAMPLE),
    "a resampling of two maps": on_step("other", 0, RESAMPLE),
    "a resampling of a vector": to_another("input", RESAMPLE, lambda m, own: m.kind == BINS),
    "a resampling of other channels": to_another(
        "input", RESAMPLE, lambda m, own: m.channels != own.channels
    ),
    "a grid before the first channel": on_step("at", -1, GRID_SPREAD),
    "a grid behind the last channel": on_step("at", 1, GRID_SPREAD),
    "a grid far behind": on_step("at", 2**31 - 8, GRID_SPREAD),
    "a grid that is none": on_step("function", 8, GRID_SPREAD),
    "a grid of a map": to_another("input", GRID_SPREAD, lambda m, own: m.kind == TILED),
}
"""Of steps that read the numbers of other kinds of maps, in functions, statistics and resampling."""
CASES |= {name: (damage, "does not fit its maps") for name, damage in DOES_NOT_FIT.items()}
CASES |= {
    "no slopes": (on_slopes(-1), "does not fit its maps"),
    "slopes beyond the end": (on_slopes(1 << 40), "beyond the numbers"),
    "slopes before the start": (on_slopes(-2), "does not fit its maps"),
}
for _kind in (APPLY, MULTIPLY, OFFSET, LAYER_NORM, GROUP_NORM, MEAN, RESAMPLE, GRID_SPREAD):
    CASES |= {
        f"{STEP_NAMES[_kind]}: {name} {value}": (on_step(name, value, _kind), says)
        for name, value, says in (
            ("input", 10**6, "map that is not there"),
            ("input", -1, "map that is not there"),
            ("other", -2, "map that is not there"),
            ("out", 2**31 - 1, "map that is not there"),
            ("out", 0, "writes what it reads"),
            ("before_scale", 1 << 40, "beyond the numbers"),
            ("before_scale", -2, "beyond the numbers"),
            ("before_shift", (1 << 63) - 1, "beyond the numbers"),
            ("before_low", math.nan, "bound that holds NaN"),
            ("before_high", math.nan, "bound that holds NaN"),
            ("low", math.nan, "bound that holds NaN"),
            ("high", math.nan, "bound that holds NaN"),
        )
    }
CASES |= {
    f"a grid of {value} {name}": (on_map(name, value, BINS), "cannot be")
    for name, value in (("grid", 0), ("grid", 65), ("grid", -1), ("columns", 65), ("columns", -1))
}
SIDES: dict[str, Callable[[bytes], bytes]] = {
    "a side of no parts": on_whole(down=0),
    "a side of parts before the first": on_whole(down=-2),
    "a side of too many parts": on_whole(down=65),
    "a side that is far too large": on_whole(up=1 << 20, down=2),
    "a side below none": on_whole(up=-1),
    "a side that grows": on_whole(more=1 << 30),
    "a side that shrinks": on_whole(more=-1),
    "a side of none at least": on_whole(least=0),
    "a side of many at least": on_whole(least=65),
    "a share of tiles": on_map("down", 2, TILED),
    "a least side of a grid": on_map("least", 5, BINS),
}
CASES |= {name: (damage, "cannot be") for name, damage in SIDES.items()}
WHOLE_DOES_NOT_FIT: dict[str, Callable[[bytes], bytes]] = {
    "a composed map of other sides": whole_to(COMPOSE, "out", up=1, down=2, more=1, least=1),
    "a map to cut of other sides": whole_to(CUT, "input", up=1, down=2, more=1, least=1),
    "a whole map resized by a factor": on_whole_step(RESAMPLE, "factor", 2),
    "a whole map resized as nothing is": on_whole_step(RESAMPLE, "function", BY_FACTOR),
    "a whole map resized to tiles": on_whole_step(RESAMPLE, "out", 1),
    "a window beyond a whole map": on_whole_step(DEPTHWISE, "top", 3),
    "a window of too many samples": on_whole_step(DEPTHWISE, "rows", 122),
    "a window of a whole map into tiles": on_whole_step(DEPTHWISE, "out", 1),
    "a product of whole maps of other sides": on_whole_step(MULTIPLY, "other", 1),
}
CASES |= {name: (damage, "does not fit its maps") for name, damage in WHOLE_DOES_NOT_FIT.items()}
CASES["columns of a map"] = on_map("columns", 1, TILED), "cannot be"


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_the_damaged_programs_have_every_step(precision: str, file: Path) -> None:
    assert {step.kind for step in load_program(file).tables.steps} == set(range(len(STEP_NAMES)))


@pytest.mark.parametrize("case", CASES)
def test_c_and_python_refuse_the_same(case: str, file: Path) -> None:
    damage, says = CASES[case]
    file.write_bytes(damage(file.read_bytes()))
    assert says in refusal(file)


def test_what_is_only_written_again_is_read(file: Path) -> None:
    """The functions above damage nothing but what they name."""
    for same in (with_metadata(len), with_info(len), with_tables(lambda *_: None)):
        file.write_bytes(same(file.read_bytes()))
        assert refusal(file) == ""


def test_flipped_bits_are_judged_the_same(file: Path) -> None:
    data = file.read_bytes()
    tables = 8 + int.from_bytes(data[:8], "little")
    generator, refused = np.random.default_rng(0), 0
    for _ in range(150):
        wrong = bytearray(data)
        wrong[int(generator.integers(tables + 4096))] ^= 1 << int(generator.integers(8))
        file.write_bytes(wrong)
        refused += bool(refusal(file))
    assert 50 < refused < 150


def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    error = ctypes.create_string_buffer(64)
    library = native()
    library.foveal_load.restype = ctypes.c_void_p
    for path in (tmp_path / "absent", tmp_path):
        assert not library.foveal_load(str(path).encode(), error, ctypes.c_size_t(len(error)))
        assert error.value == b"the file cannot be read"
