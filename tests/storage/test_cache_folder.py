"""The cache folder belongs to the user, and nobody else can write it; else a private one serves."""

from __future__ import annotations

import os
import stat
import tempfile
import warnings
from pathlib import Path

import pytest

from foveal.storage.cache import folder, home_folder, trouble, trouble_above
from foveal.storage.store import Store

STRANGER = 54321
"""A user that is not this one, and has no entry in the list of users."""
pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="a system without owners of files")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files to other users"
)


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a cache folder that is not there, and keep private ones apart from this machine's."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "new" / "cache"))
    return tmp_path / "new" / "cache"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def private(tmp_path: Path) -> Path:
    return tmp_path / "tmp" / f"foveal-{os.geteuid()}"


@pytest.mark.parametrize("mask", [0, 0o022])
def test_it_is_created_for_the_user_alone(mask: int, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveal.storage.store.folder", folder)
    before = os.umask(mask)
    try:
        file = Store("kind", 1).write("key", {"a": 1})
    finally:
        os.umask(before)
    assert file.parent == fresh / "kind" and Store("kind", 1).read("key") == {"a": 1}
    assert [mode(p) for p in (fresh.parent, fresh, fresh / "kind", fresh / "locks")] == [0o700] * 4


def test_a_folder_that_only_others_can_read_serves(fresh: Path) -> None:
    fresh.mkdir(parents=True)
    fresh.chmod(0o755)
    assert folder() == fresh


@pytest.mark.parametrize("rights", [0o777, 0o775, 0o757])
def test_one_that_others_can_write_is_left_alone(rights: int, fresh: Path, tmp_path: Path) -> None:
    fresh.mkdir(parents=True)
    fresh.chmod(rights)
    sentence = rf"kept in .*foveal-\d+: other users can write {fresh} \(chmod go-w.*FOVEAL_CACHE"
    with pytest.warns(RuntimeWarning, match=sentence) as said:
        assert folder() == folder() == private(tmp_path)
    assert len(said) == 1
    assert mode(private(tmp_path)) == 0o700 and not list(fresh.iterdir())


@needs_root
def test_one_of_another_user_is_left_alone(fresh: Path, tmp_path: Path) -> None:
    fresh.mkdir(parents=True, mode=0o700)
    os.chown(fresh, STRANGER, STRANGER)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert folder() == private(tmp_path)


def test_one_that_cannot_be_created_is_replaced(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.parent.write_text("a file")
    with pytest.warns(RuntimeWarning, match=r"cannot be used \(Not a directory\)"):
        assert folder() == private(tmp_path)
    monkeypatch.setenv("FOVEAL_CACHE", str(fresh.parent))
    with pytest.warns(RuntimeWarning, match="is no folder"):
        assert folder() == private(tmp_path)


def test_a_link_to_a_folder_of_the_user_serves(fresh: Path, tmp_path: Path) -> None:
    fresh.parent.mkdir()
    fresh.symlink_to(tmp_path / "tmp")
    assert folder() == fresh


def test_a_private_folder_that_is_a_link_is_not_used(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    private(tmp_path).symlink_to(tmp_path / "elsewhere")
    taken(fresh, tmp_path)


def test_a_private_folder_that_others_can_write_is_not_used(fresh: Path, tmp_path: Path) -> None:
    private(tmp_path).mkdir()
    private(tmp_path).chmod(0o777)
    taken(fresh, tmp_path)


@needs_root
def test_a_private_folder_that_another_user_made_is_not_used(fresh: Path, tmp_path: Path) -> None:
    private(tmp_path).mkdir(mode=0o700)
    os.chown(private(tmp_path), STRANGER, STRANGER)
    taken(fresh, tmp_path)


def taken(fresh: Path, tmp_path: Path) -> None:
    """Find a third folder where somebody has taken the usual name of the private one."""
    fresh.mkdir(parents=True)
    fresh.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="other users can write"):
        found = folder()
    assert found == folder() and found != private(tmp_path) and found.parent == tmp_path / "tmp"
    assert mode(found) == 0o700 and found.stat().st_uid == os.geteuid()


def test_without_a_home_and_a_temporary_folder_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object) -> str:
        raise FileNotFoundError("no usable temporary directory")

    def homeless() -> Path:
        raise RuntimeError("could not determine home directory")

    monkeypatch.delenv("FOVEAL_CACHE")
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setattr("foveal.storage.store.folder", folder)
    assert home_folder() is None
    with pytest.warns(RuntimeWarning, match="there is no home folder"):
        assert Store("kind", 1).read("key") is None
    with pytest.raises(OSError, match="Not a directory"):
        Store("kind", 1).write("key", {})


def test_where_files_have_no_owners_the_folder_serves(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.mkdir(parents=True)
    fresh.chmod(0o777)
    monkeypatch.delattr(os, "geteuid")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert folder() == fresh and trouble(fresh) == ""


@pytest.mark.parametrize("linked", [False, True])
def test_one_below_a_folder_that_everybody_can_write_is_left_alone(
    linked: bool, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.mkdir(parents=True, mode=0o700)
    if linked:
        (tmp_path / "link").symlink_to(fresh)
        monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "link"))
    fresh.parent.chmod(0o777)
    with pytest.warns(RuntimeWarning, match=rf"everybody can write {fresh.parent}, which holds .*chmod o-w"):
        assert folder() == private(tmp_path)


@pytest.mark.parametrize("rights", [0o1777, 0o775, 0o770])
def test_folders_above_may_be_shared_as_homes_and_temporary_ones_are(rights: int, fresh: Path) -> None:
    fresh.mkdir(parents=True, mode=0o700)
    fresh.parent.chmod(rights)
    assert folder() == fresh


@needs_root
def test_one_below_what_another_user_made_in_a_temporary_folder_is_left_alone(
    fresh: Path, tmp_path: Path
) -> None:
    fresh.mkdir(parents=True, mode=0o700)
    os.chown(fresh.parent, STRANGER, STRANGER)
    assert folder() == fresh, "the owner of a folder above is trusted"
    tmp_path.chmod(0o1777)
    with pytest.warns(
        RuntimeWarning, match=f"{fresh.parent} belongs to another user, in a folder that every"
    ):
        assert folder() == private(tmp_path)


def test_a_file_of_the_administrator_is_trusted_where_that_is_asked_for(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.parent.mkdir()
    fresh.touch()
    fresh.chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: fresh.stat().st_uid + 1)
    assert "belongs to another user" in trouble(fresh)
    assert bool(trouble(fresh, root=True)) == (fresh.stat().st_uid != 0)
    monkeypatch.delattr(os, "geteuid")
    fresh.parent.chmod(0o777)
    assert trouble_above(fresh) == ""
