from __future__ import annotations

import os
from pathlib import Path

import pytest

from foveal.storage.atomic import write_atomically
from foveal.storage.cache import folder
from foveal.storage.names import find, suggestion


@pytest.mark.parametrize(("content", "stored"), [("größe\n", "größe\n".encode()), (b"\x00\xff", b"\x00\xff")])
def test_content_replaces_the_old_file_and_leaves_no_other(
    content: str | bytes, stored: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    write_atomically(path, content)
    assert path.read_bytes() == stored and list(tmp_path.iterdir()) == [path]


def test_a_failure_on_the_way_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")

    def full(handle: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_name_is_found_or_the_closest_one_is_suggested() -> None:
    table = {"entropy": 1, "margin": 2}
    assert find("margin", table, "policy") == 2
    sentence = "no policy named 'entropi'; did you mean 'entropy'\\? available: entropy, margin"
    with pytest.raises(ValueError, match=sentence):
        find("entropi", table, "policy")
    with pytest.raises(ValueError, match="no policy named 'xyz'; available: entropy, margin"):
        find("xyz", table, "policy")
    with pytest.raises(ValueError, match="available: none"):
        find("xyz", {}, "policy")
    assert suggestion("xyz", table) == ""


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "somewhere"))
    assert folder() == tmp_path / "somewhere"
    monkeypatch.delenv("FOVEAL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert folder() == tmp_path / "me" / ".cache" / "foveal"
