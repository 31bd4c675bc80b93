"""Libraries that are named or brought: loaded only if nobody else can change them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from foveal.kernels import build as native
from foveal.kernels.build import CannotBuild, build, library, prebuilt
from foveal.kernels.flags import PREBUILT

STRANGER = 54321
pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="a system without owners of files")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files to other users"
)


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of this machine's kernels, which FOVEAL_KERNELS names."""
    if not native.available():
        pytest.skip("no kernels here")
    path = tmp_path / "shared" / "kernels.so"
    path.parent.mkdir()
    shutil.copy(build(), path)
    monkeypatch.setenv("FOVEAL_KERNELS", str(path))
    library.cache_clear()
    yield path
    monkeypatch.undo()
    library.cache_clear()


def refused() -> str:
    with pytest.warns(RuntimeWarning, match="several times slower: FOVEAL_KERNELS names") as said:
        assert not native.available() and not native.available()
    assert len(said) == 1
    return native.why_not()


def test_a_named_library_of_the_user_is_loaded(named: Path) -> None:
    link = named.with_name("link.so")
    link.symlink_to(named)
    os.environ["FOVEAL_KERNELS"] = str(link)
    assert native.available()


@pytest.mark.parametrize("rights", [0o775, 0o757, 0o666])
def test_one_that_others_can_write_is_not_loaded(rights: int, named: Path) -> None:
    named.chmod(rights)
    assert f"other users can write {named} (chmod go-w forbids it); name a library" in refused()


def test_one_in_a_folder_that_everybody_can_write_is_not_loaded(named: Path) -> None:
    named.parent.chmod(0o777)
    assert f"everybody can write {named.parent}" in refused()


def test_one_in_a_temporary_folder_is_loaded(named: Path) -> None:
    named.parent.chmod(0o1777)
    assert native.available()


@needs_root
def test_one_of_another_user_is_not_loaded(named: Path) -> None:
    os.chown(named, STRANGER, STRANGER)
    assert "belongs to another user" in refused()


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A package with a library for every processor: the module and, first, the libraries."""
    module = tmp_path / "build.py"
    module.touch()
    files = [tmp_path / f"foveal-{native.sys.platform}-{target}.so" for target in PREBUILT]
    for path in files:
        path.touch()
    monkeypatch.setattr(native, "SOURCES", tmp_path)
    monkeypatch.setattr(native, "__file__", str(module))
    if prebuilt() is None:
        pytest.skip("nothing is prebuilt for this processor")
    return [*files, module]


def test_what_a_wheel_brought_is_as_safe_as_the_package(brought: list[Path]) -> None:
    for path in brought:
        path.chmod(0o775)
    assert prebuilt() is not None, "a shared environment is its group's affair"
    brought[-1].chmod(0o755)
    with pytest.raises(CannotBuild, match=r"\.so can be changed by users who cannot .*; install it anew"):
        prebuilt()


@needs_root
def test_what_a_wheel_brought_has_the_owner_of_the_package(brought: list[Path]) -> None:
    for path in brought[:-1]:
        os.chown(path, STRANGER, STRANGER)
    with pytest.raises(CannotBuild, match="install it anew"):
        prebuilt()
    os.chown(brought[-1], STRANGER, STRANGER)
    assert prebuilt() is not None, "an image whose files belong to another user than runs it"
