from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.program import CoarseToFineRun, load_program
from foveal.program.quantise import find_scales, in_int8
from foveal.program.spec import APPLY, HEAD_BEFORE, MAP_BEFORE, SIDES_SINCE, Head, MapSpec, StepSpec, native

WITHOUT_TORCH = """
import numpy as np
from foveal.runtime import CoarseToFineRun, load_program
image = np.load(sys.argv[2])
result = load_program(sys.argv[1]).run(image, CoarseToFineRun(0.6), threads=2)
np.save(sys.argv[3], result.labels)
"""


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_a_file_runs_without_torch(precision: str, tmp_path: Path, program, blocked: str) -> None:
    given, image = program("swiftnet_nano"), torch.rand(1, 3, 96, 130).numpy()
    if precision == "int8":
        given = in_int8(given, find_scales(given, [image]))
    given.save(tmp_path / "net.safetensors")
    np.save(tmp_path / "image.npy", image)
    names = [str(tmp_path / n) for n in ("net.safetensors", "image.npy", "labels.npy")]
    subprocess.run([sys.executable, "-c", blocked + WITHOUT_TORCH, *names], check=True)
    labels = np.load(tmp_path / "labels.npy")
    assert (labels == given.run(image, CoarseToFineRun(0.6)).labels).mean() > 0.999


def test_what_is_read_is_what_was_written(tmp_path: Path, program) -> None:
    image = torch.rand(1, 3, 96, 130)
    program("swiftnet_nano").save(tmp_path / "net.safetensors")
    one = program("swiftnet_nano").run(image, logits=True, threads=1)
    two = load_program(tmp_path / "net.safetensors").run(image, logits=True, threads=1)
    np.testing.assert_array_equal(one.logits, two.logits)


def test_other_files_are_refused(tmp_path: Path, program) -> None:
    program("swiftnet_nano").save(tmp_path / "net.safetensors")
    data = (tmp_path / "net.safetensors").read_bytes()
    for wrong in (
        b"",
        b"nothing",
        data[: len(data) // 2],
        data.replace(b"foveal-program", b"foveal-another"),
    ):
        (tmp_path / "wrong").write_bytes(wrong)
        with pytest.raises(ValueError, match="holds no program"):
            load_program(tmp_path / "wrong")


VERSION_1 = Path(__file__).with_name("version1.foveal")
"""Three convolutions, written by the last commit whose programs were of version 1; `version1.png` has the
labels that it gave with `CoarseToFineRun(0.6)` for the image of random numbers below."""


def test_a_file_of_version_1_answers_as_it_did(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((1, 3, 96, 130), np.float32)
    with Image.open(VERSION_1.with_suffix(".png")) as picture:
        expected = np.array(picture)
    assert len(np.unique(expected)) > 2
    program = load_program(VERSION_1)
    assert program.info is not None and program.info.classes == tuple("abcde")
    program.save(tmp_path / "again.foveal")
    for each in (program, load_program(tmp_path / "again.foveal")):
        found = each.run(image, CoarseToFineRun(0.6), threads=1)
        assert (found.labels[0] == expected).mean() > 0.999  # other processors round otherwise
        assert set(np.unique(found.levels)) == {0, 1}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_versions_gave_a_meaning_to_what_older_files_lack(version: int, tmp_path: Path, program) -> None:
    path, given = tmp_path / "net.foveal", program("swiftnet_nano")
    given.save(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header, tables = json.loads(path.read_bytes()[8 : 8 + size]), bytearray(path.read_bytes()[8 + size :])
    head = Head.from_buffer(tables)
    steps = (StepSpec * head.steps).from_buffer_copy(tables, header["steps"]["data_offsets"][0])
    maps = (MapSpec * head.maps).from_buffer_copy(tables, header["maps"]["data_offsets"][0])
    assert all(step.kind < APPLY and step.function == 0 for step in steps)
    assert all(m.columns == m.up == m.down == m.more == m.least == 0 for m in maps) and head.multiple == 1
    header["__metadata__"]["version"], head.version = str(version), version
    parts = {name: bytes(tables[slice(*header[name]["data_offsets"])]) for name in ("steps", "numbers")}
    older = b"".join(bytes(m)[:MAP_BEFORE] if version < SIDES_SINCE else bytes(m) for m in maps)
    parts = {"head": bytes(head)[:HEAD_BEFORE], "maps": older, **parts}
    at = 0
    for name, data in parts.items():
        width = 4 if name == "numbers" else 1
        header[name] |= {"shape": [len(data) // width], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts.values()))
    image = torch.rand(1, 3, 96, 130)
    one, two = (p.run(image, logits=True, threads=1).logits for p in (given, load_program(path)))
    np.testing.assert_array_equal(one, two)
    library = native()
    library.foveal_load.restype, library.foveal_free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    error = ctypes.create_string_buffer(256)
    loaded = library.foveal_load(str(path).encode(), error, ctypes.c_size_t(len(error)))
    assert loaded, error.value
    library.foveal_free(loaded)
