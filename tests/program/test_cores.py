"""Threads of a run begin on other cores, and may go wherever their maker may: no more and no less."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from foveal.kernels import build
from foveal.program import CoarseToFineRun

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="a system that does not say which cores a thread may use"
)
PINNED = """
import os
import sys
import numpy as np
from foveal.runtime import CoarseToFineRun, load_program
allowed = {int(sys.argv[1])}
os.sched_setaffinity(0, allowed)
program, image = load_program(sys.argv[2]), np.load(sys.argv[3])
labels = program.run(image, CoarseToFineRun(0.6), threads=3).labels
assert os.sched_getaffinity(0) == allowed, os.sched_getaffinity(0)
np.save(sys.argv[4], labels)
"""


def test_a_run_leaves_its_caller_on_the_cores_that_it_had(program) -> None:
    before, image = os.sched_getaffinity(0), torch.rand(1, 3, 96, 130)
    for _ in range(3):
        program("swiftnet_nano").run(image, CoarseToFineRun(0.6), threads=3)
        assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("first", [True, False])
def test_a_process_that_is_pinned_to_one_core_gives_the_same_labels(
    first: bool, tmp_path: Path, program
) -> None:
    given, image = program("swiftnet_nano"), torch.rand(1, 3, 96, 130).numpy()
    given.save(tmp_path / "net.safetensors")
    np.save(tmp_path / "image.npy", image)
    core = (min if first else max)(os.sched_getaffinity(0))
    names = [str(tmp_path / n) for n in ("net.safetensors", "image.npy", "labels.npy")]
    subprocess.run([sys.executable, "-c", PINNED, str(core), *names], check=True)
    expected = given.run(image, CoarseToFineRun(0.6), threads=3).labels
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected)


def test_a_thread_that_left_its_makers_core_may_use_all_that_its_maker_may(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or pytest.skip("no gcc")
    source = build.SOURCES / "platform/cores.c"
    words = ["-shared", "-fPIC", *build.include(), str(source), "-o", str(tmp_path / "cores.so"), "-pthread"]
    subprocess.run([compiler, *words], check=True)
    leave = ctypes.CDLL(str(tmp_path / "cores.so")).leave_this_core
    leave.argtypes, leave.restype = [ctypes.c_ulong], None
    here = os.sched_getaffinity(0)
    for allowed in ({min(here)}, here):
        os.sched_setaffinity(0, allowed)  # of this thread alone; those that it makes take it over
        try:
            assert cores_after(leave) == allowed
            assert os.sched_getaffinity(0) == allowed
        finally:
            os.sched_setaffinity(0, here)


def cores_after(leave: Callable[[int], None]) -> set[int]:
    """Cores that a new thread may use after it was told to leave its maker's."""
    told, found = threading.Event(), []

    def work() -> None:
        told.wait(60)
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=work)
    thread.start()
    leave(thread.ident)
    told.set()
    thread.join()
    return found[0]
