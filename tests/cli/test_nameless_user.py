"""A user that the system does not know, without a home: `docker run --user 54321`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import foveal
from commands import small_model
from foveal.kernels import build as kernels
from samples import write_folder

NOBODY = 54321
pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root becomes another user"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of that user, where every user may go."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        small_model(Path(name))
        write_folder(Path(name, "data"), 1)
        if kernels.available():
            shutil.copy(kernels.build(), Path(name, "kernels.so"))  # built for root: readable by root alone
        for path in (Path(name), *Path(name).rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        yield Path(name)


def as_nobody(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python as that user, in its folder."""
    environment = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(folder),
        "PYTHONPATH": str(Path(foveal.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    if (folder / "kernels.so").exists():
        environment["FOVEAL_KERNELS"] = str(folder / "kernels.so")
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_segments_and_is_told_where_measurements_go(folder: Path) -> None:
    try:
        if as_nobody(folder, "-c", "import torch, foveal").returncode:
            pytest.skip("this environment is for one user alone")
    except PermissionError:
        pytest.skip("this interpreter is for one user alone")
    words = ("segment", "data/images/0.png", "--model", "small.safetensors", "--json", "--out", "out")
    done = as_nobody(folder, "-c", "from foveal.cli import main; main()", *words)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    mask = folder / json.loads(done.stdout)["files"]["mask"]
    assert mask.stat().st_uid == NOBODY
    with Image.open(mask) as picture:
        assert picture.size == (96, 64)
    calibrate = ("calibrate", "small.safetensors", "--size", "64x64", "--json")
    done = as_nobody(folder, "-c", "from foveal.cli import main; main()", *calibrate)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("there is no home folder") == 1
    kept = folder / f"foveal-{NOBODY}"
    assert kept.stat().st_uid == NOBODY and kept.stat().st_mode & 0o777 == 0o700
    assert list((kept / "cost").iterdir())
