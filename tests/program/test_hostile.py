"""Damaged files: refused with a reason, or run; never a crash, and the same in C and in Python."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from foveal.hub.export import export_program
from foveal.kernels import build
from foveal.kernels.flags import FLAGS
from foveal.program import ProgramInfo, load_program
from foveal.program.spec import CONVOLVE, Head, MapSpec, StepSpec, native

SEEDS = 300
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
INFO = ProgramInfo("tiny", tuple("abcde"), tuple((k, k, k) for k in range(5)))


@pytest.fixture(scope="module")
def exported() -> dict[str, bytes]:
    """Files that were made, by precision."""
    return {}


@pytest.fixture(params=["f32", "int8"])
def file(request: pytest.FixtureRequest, exported: dict[str, bytes], network, tmp_path: Path) -> Path:
    path, precision = tmp_path / "tiny.foveal", request.param
    if precision not in exported:
        images = [torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))]
        export_program(network("swiftnet_nano"), path, precision, images, INFO)
        exported[precision] = path.read_bytes()
    path.write_bytes(exported[precision])
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
    flags = [flag for flag in FLAGS if flag != "-O3"] + ["-O0", "-march=native", *SANITIZE, *build.include()]
    sources = [*sorted(build.SOURCES.rglob("*.c")), Path(__file__).with_name("hostile.c")]
    words = [compiler, *flags, *map(str, sources), "-o", str(folder / "hostile"), "-pthread", "-lm"]
    subprocess.run(words, check=True)
    return folder / "hostile"


def test_damaged_files_are_refused_or_run(file: Path, hostile: Path) -> None:
    done = subprocess.run([str(hostile), str(file), str(SEEDS)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.fullmatch(r"(\d+) refused, (\d+) ran\n", done.stdout)
    assert found is not None
    refused, ran = int(found[1]), int(found[2])
    assert refused + ran == 1 + 200 + SEEDS
    assert refused > 200 and ran > 10


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


def on_step(name: str, value: int, kind: int = CONVOLVE) -> Callable[[bytes], bytes]:
    """Set a field of the last step of a kind."""

    def change(head: Head, maps: ctypes.Array, steps: ctypes.Array) -> None:
        setattr([s for s in steps if s.kind == kind][-1], name, value)

    return with_tables(change)


CASES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda data: b"", "cut short"),
    "a header without end": (lambda data: b"\xff" * 7 + b"\x7f" + data, "header is too large"),
    "no JSON": (lambda data: data[:8] + b"!" + data[9:], "no JSON object"),
    "bytes behind": (lambda data: data + b"0", "behind its tables"),
    "half": (lambda data: data[: len(data) // 2], "cut short"),
    "another version": (with_metadata(lambda m: m.update(version="3")), "another version"),
    "another format": (with_metadata(lambda m: m.update(format="x")), "format is not"),
    "names of fewer steps": (with_metadata(lambda m: m.update(names="[]")), "name its steps"),
    "info that is no JSON": (with_metadata(lambda m: m.update(info="{")), "info is no JSON"),
    "unknown info": (with_info(lambda i: i.update(more=1)), "four members"),
    "fewer classes": (with_info(lambda i: i["classes"].pop()), "proper classes"),
    "a colour beyond bytes": (with_info(lambda i: i["palette"][0].__setitem__(0, 256)), "proper palette"),
    "an odd tile": (with_info(lambda i: i["run"].update(tile=3)), "proper tile"),
    "no gain": (with_info(lambda i: i["run"].update(level_gain=[])), "proper level_gain"),
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
