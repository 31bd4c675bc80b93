"""Wheels, installed cold: with prebuilt kernels or without, on a machine that has no compiler."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from foveal.data.image import save_image
from foveal.data.synthetic import street
from foveal.kernels.flags import MACHINES
from foveal.models import create_model
from foveal.program import CoarseToFineRun, compile_network
from own_kernels import with_kernels

pytest.importorskip("hatchling", reason="hatchling is not installed; `make setup` installs it")

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import foveal
from foveal.cli import main
from foveal.kernels.build import built
try:
    main()
finally:
    print("package", foveal.__path__[0], file=sys.stderr)
    print("kernels", built(), file=sys.stderr)
"""
"""Runs the command line, and says at the end where the package lies and which kernels it loaded."""


def build_wheel(folder: Path, prebuilt: str) -> Path:
    """Build the wheel of this checkout into a folder, with the kernels for some processors: all for "1"."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "FOVEAL_PREBUILT": prebuilt},
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.iterdir()  # and nothing that the build left behind
    return wheel


def libraries(wheel: Path) -> list[str]:
    """List the kernels in a wheel."""
    with ZipFile(wheel) as files:
        return sorted(Path(name).name for name in files.namelist() if name.endswith(".so"))


@dataclass(frozen=True)
class Run:
    """What `foveal segment` did: its JSON, its labels [H, W], and the lines that it wrote to stderr."""

    row: dict[str, Any]
    labels: Tensor
    said: list[str]

    def told(self, about: str) -> str:
        """Return what the line that begins with a word says."""
        (line,) = (line for line in self.said if line.startswith(about))
        return line.removeprefix(about).strip()

    @property
    def warnings(self) -> list[str]:
        """Lines that are warnings."""
        return [line for line in self.said if "Warning: " in line]


def segment_with(wheel: Path, folder: Path) -> Run:
    """Install a wheel beside the packages that are there, and segment a street without a compiler."""
    package, empty = folder / "package", folder / "empty"
    install = [
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
        str(package),
        str(wheel),
    ]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    empty.mkdir()
    save_image(street(3, (120, 160))[0], folder / "street.png")
    words = ["segment", str(folder / "street.png"), "--budget", "0.5", "--json", "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=empty,
        env={"PATH": str(empty), "HOME": str(empty), "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    with Image.open(row["files"]["mask"]) as mask:
        width, height = mask.size
        labels = torch.frombuffer(bytearray(mask.tobytes()), dtype=torch.uint8).view(height, width)
    run = Run(row, labels, done.stderr.splitlines())
    assert Path(run.told("package")).parent == package
    return run


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("pure"), "0")


@pytest.fixture(scope="module")
def prebuilt_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("kernels are prebuilt on Linux with gcc")
    return build_wheel(tmp_path_factory.mktemp("prebuilt"), MACHINES[platform.machine()][0])


@pytest.fixture(scope="module")
def pure(pure_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return segment_with(pure_wheel, tmp_path_factory.mktemp("installed"))


def test_a_wheel_brings_the_package_and_its_models_and_nothing_else(pure_wheel: Path) -> None:
    with ZipFile(pure_wheel) as files:
        names = files.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"foveal"}
    assert any(name.startswith("foveal/hub/weights/") and name.endswith(".safetensors") for name in names)
    assert any(name.endswith(".c") for name in names)
    assert {"foveal/include/foveal.h", "foveal/runtime.py"} <= set(names)
    assert not any(name.endswith((".so", ".o")) for name in names)
    assert pure_wheel.name.endswith("-py3-none-any.whl")


def test_prebuilt_kernels_are_loaded_without_a_compiler(
    prebuilt_wheel: Path, pure: Run, tmp_path: Path
) -> None:
    assert "-py3-none-linux_" in prebuilt_wheel.name
    assert libraries(prebuilt_wheel) == [f"foveal-linux-{MACHINES[platform.machine()][0]}.so"]
    with ZipFile(prebuilt_wheel) as files:
        assert not any(name.endswith(".o") for name in files.namelist())
    run = segment_with(prebuilt_wheel, tmp_path)
    assert run.told("kernels").startswith("foveal-linux-")
    assert run.warnings == []
    assert float((run.labels == pure.labels).double().mean()) > 0.999  # logits may be equal but for rounding
    assert (run.row["work"], run.row["levels"]) == (pure.row["work"], pure.row["levels"])


@pytest.mark.slow  # `make wheel` builds them all as well
def test_every_processor_of_a_machine_is_prebuilt(prebuilt_wheel: Path, tmp_path: Path) -> None:
    targets = MACHINES[platform.machine()]
    assert libraries(build_wheel(tmp_path, "1")) == sorted(f"foveal-linux-{name}.so" for name in targets)


def test_a_processor_that_there_is_none_of_is_refused(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux") or platform.machine() not in MACHINES:
        pytest.skip("kernels are prebuilt on Linux")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        build_wheel(tmp_path, "x86-64-v9")
    assert b"FOVEAL_PREBUILT names x86-64-v9; give 1, or some of " in failed.value.stderr
    assert not list(tmp_path.iterdir())


def test_a_pure_wheel_says_once_what_is_lost_without_a_compiler(pure: Run) -> None:
    assert pure.told("kernels") == "none"
    assert len(pure.warnings) == 1
    assert "foveal runs without its C kernels" in pure.warnings[0]
    assert "there is no C compiler" in pure.warnings[0]


def test_prebuilt_kernels_compute_what_the_operations_mean(prebuilt_wheel: Path, tmp_path: Path) -> None:
    (name,) = libraries(prebuilt_wheel)
    with ZipFile(prebuilt_wheel) as files:
        library = Path(files.extract(f"foveal/kernels/cpu/{name}", tmp_path))
    with_kernels(library, "tests/ops/test_convolve.py", "tests/ops/test_native.py")


ALONE = """
import sys
sys.modules["torch"] = None
import numpy as np
from foveal.kernels.build import built
from foveal.runtime import CoarseToFineRun, load_program
image = np.random.default_rng(0).random((1, 3, 96, 130), np.float32)
np.save(sys.argv[2], load_program(sys.argv[1]).run(image, CoarseToFineRun(0.6), threads=2).labels)
print(built())
"""
"""Runs a program where PyTorch cannot be imported."""


def test_prebuilt_kernels_run_a_program_without_pytorch(prebuilt_wheel: Path, tmp_path: Path) -> None:
    package, labels = tmp_path / "package", tmp_path / "labels.npy"
    with ZipFile(prebuilt_wheel) as files:
        files.extractall(package)
    program = compile_network(create_model("swiftnet_nano", 5).eval())
    program.save(tmp_path / "net.foveal")
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(package)}
    words = [sys.executable, "-c", ALONE, str(tmp_path / "net.foveal"), str(labels)]
    done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("foveal-linux-")
    image = np.random.default_rng(0).random((1, 3, 96, 130), np.float32)
    expected = program.run(image, CoarseToFineRun(0.6), threads=2).labels
    assert (np.load(labels) == expected).mean() > 0.999
