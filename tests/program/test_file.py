from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from foveal.program import CoarseToFineRun, load_program
from foveal.program.quantise import find_scales, in_int8

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
