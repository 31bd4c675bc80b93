from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TIMES = {"dense_ms": 90.0, "static_ms": 50.0, "own_ms": 45.0, "ms": 30.0, "no_static": "", "timed": "abc"}
KEYS = "dense_ms", "static_ms", "own_ms", "ms"
ROW = {"name": "Net", "macs": 0.4, "engine": "program", "commit": "abc", **TIMES}


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/networks.py, under another name: tests/support has a module `networks`."""
    scripts = Path(__file__).parents[2] / "scripts"
    monkeypatch.syspath_prepend(str(scripts))
    spec = importlib.util.spec_from_file_location("networks_script", scripts / "networks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def untimed(**changes: Any) -> dict[str, Any]:
    return {**ROW, **dict.fromkeys(KEYS), "timed": "", "commit": "def", **changes}


def test_times_of_an_earlier_commit_are_kept_and_marked(networks: ModuleType) -> None:
    row = networks._with_times(untimed(), ROW)
    assert row == {**ROW, "commit": "def", "timed": "abc"}
    again = networks._with_times(untimed(commit="ghi"), row)
    assert (again["timed"], again["commit"]) == ("abc", "ghi"), "the commit that they are of"


@pytest.mark.parametrize(
    ("row", "before"),
    [
        (untimed(), None),
        (untimed(), untimed()),
        (untimed(engine="attention"), ROW),
        (untimed(macs=None), ROW),
    ],
)
def test_times_of_something_else_are_not(
    row: dict[str, Any], before: dict[str, Any] | None, networks: ModuleType
) -> None:
    assert networks._with_times(row, before) == row


def test_the_next_plain_run_takes_times_that_are_missing_or_old(networks: ModuleType) -> None:
    assert not networks._untimed(ROW)
    assert networks._untimed(untimed()) and networks._untimed({**ROW, "commit": "def"})
    assert not networks._untimed(untimed(macs=None)), "a network that is refused has none"


def test_every_network_is_named_once(networks: ModuleType) -> None:
    names = [name for _, name, _ in networks.networks()]
    assert len(names) == len({*names})


def test_gains_are_said_against_every_rival(networks: ModuleType) -> None:
    gain = importlib.import_module("networks_page").gain
    assert gain("OpenVINO", [2.0, 1.0, 4.0]) == (
        "OpenVINO (3 networks): 2.0 times less in the median, 1.0 to 4.0"
    )
    assert gain("OpenVINO", []) == "OpenVINO: not measured"
