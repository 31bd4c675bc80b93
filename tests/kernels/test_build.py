"""Building and loading the C kernels; what they compute is tested beside the operations."""

from __future__ import annotations

import ctypes
import os
import platform
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from foveal.geometry.layout import Layout
from foveal.kernels import build as native
from foveal.kernels import flags
from foveal.kernels.build import CannotBuild, build, library
from foveal.ops import enlarge
from own_kernels import with_kernels

needs_kernels = pytest.mark.skipif(not native.available(), reason="no compiler")


@needs_kernels
def test_kernels_are_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, cache = tmp_path / "package", tmp_path / "cache"
    for name, folder in (("SOURCES", package / "cpu"), ("HEADERS", package / "include")):
        folder.mkdir(parents=True)
        monkeypatch.setattr(native, name, folder)  # ours take a quarter of a minute
    (package / "cpu" / "one.c").write_text(
        '__attribute__((visibility("default"))) int one(void) { return 1; }\n'
    )
    monkeypatch.setenv("FOVEAL_CACHE", str(cache))
    path = build()
    when = path.stat().st_mtime_ns
    assert build() == path and path.stat().st_mtime_ns == when and list(cache.iterdir()) == [path]
    assert ctypes.CDLL(str(path)).one() == 1


@pytest.fixture
def without_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine whose compiler does not exist."""
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    for name in ("FOVEAL_KERNELS", "FOVEAL_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    library.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    library.cache_clear()


def test_without_a_compiler_there_are_none(without_compiler: Path) -> None:
    with pytest.raises(CannotBuild, match=r"no-such-compiler.*name.*a compiler in CC"):
        build()
    assert not list(without_compiler.iterdir())


def test_one_warning_says_that_it_runs_slowly_and_why(without_compiler: Path) -> None:
    with pytest.warns(RuntimeWarning, match=r"several times slower: .*no-such-compiler") as warned:
        assert not native.available() and not native.available()
    assert len(warned) == 1
    assert "no-such-compiler" in native.why_not() and native.built() == "none"
    with pytest.raises(RuntimeError, match=r"not available: .*no-such-compiler"):
        native.loaded()


@needs_kernels
def test_what_the_compiler_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotBuild, match=r"failed \(.*no-such-processor.*\); name another compiler"):
        build("no-such-processor", tmp_path / "kernels.so")


def test_kernels_work_wherever_tests_must_not_be_skipped() -> None:
    """Most tests of kernels are skipped without them; a run that is to prove something needs them."""
    assert native.available() == (native.why_not() == "")
    if os.environ.get("CI", "").lower() in ("1", "true"):
        assert native.available(), native.why_not()


def test_the_hook_for_wheels_compiles_with_the_same_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = ModuleType("hatchling.builders.hooks.plugin.interface")
    vars(builder)["BuildHookInterface"] = object  # the builder itself need not be installed
    for depth in range(1, 5):
        name = ".".join(builder.__name__.split(".")[:depth])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, builder.__name__, builder)
    hook = runpy.run_path(str(Path(__file__).parents[2] / "hatch_build.py"))
    assert (
        hook["FLAGS"] == (*flags.FLAGS, flags.OPENMP, "-DFOVEAL_PREBUILT")
        and hook["MACHINES"] == flags.MACHINES
    )
    assert {target for targets in flags.MACHINES.values() for target in targets} == set(flags.PREBUILT)


@needs_kernels
def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEAL_NATIVE", "0")
    library.cache_clear()
    try:
        assert not native.available()
        tiles, layout = torch.randn(1, 2, 4, 4), Layout.__new__(Layout)
        with pytest.raises(ValueError, match=r"not available here .*FOVEAL_NATIVE=0"):
            enlarge(tiles, layout, 2, backend="native")
    finally:
        monkeypatch.undo()
        library.cache_clear()
    assert native.available()


@needs_kernels
@pytest.mark.slow  # tests/wheel has those of the next larger processor
@pytest.mark.skipif(platform.machine() != "x86_64", reason="for other processors")
def test_kernels_for_the_smallest_processors_compute_the_same() -> None:
    with_kernels(build("x86-64"), "tests/ops/test_convolve.py", "tests/ops/test_native.py")
