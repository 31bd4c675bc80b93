from __future__ import annotations

from pathlib import Path

import pytest

from foveal.storage.cache import folder
from foveal.storage.names import find, suggestion


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
