from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from foveal.kernels import autotune
from foveal.kernels.autotune import Autotuner, fastest, is_tuning, tuning


@pytest.fixture
def autotuner(tmp_path: Path) -> Iterator[Autotuner]:
    """What is measured in this test alone."""
    found = Autotuner("test", ("slow", "quick"))
    with found.kept_in(tmp_path / "choices"):
        yield found


def quickest(names: tuple[str, ...], run: object) -> str:
    return "quick" if "quick" in names else names[0]


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "fastest", quickest)


def test_what_was_measured_is_kept_and_not_measured_again(
    autotuner: Autotuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tuning():
        assert is_tuning() and autotuner.measure("a case", ("slow", "quick"), print) == "quick"
    assert not is_tuning() and json.loads(autotuner.path.read_text())["record"] == {"a case": "quick"}
    autotuner.reload()
    monkeypatch.setattr(autotune, "fastest", lambda names, run: pytest.fail("measured again"))
    assert autotuner.get("a case") == "quick" and len(autotuner) == 1
    assert autotuner.measure("a case", ("slow", "quick"), print) == "quick"


def test_a_choice_that_is_not_possible_here_is_measured_anew(autotuner: Autotuner) -> None:
    autotuner.measure("a case", ("quick",), print)
    assert autotuner.measure("a case", ("slow",), print) == "slow"


def test_nothing_is_written_if_nothing_was_measured(autotuner: Autotuner) -> None:
    with tuning():
        pass
    assert not autotuner.path.exists()


def test_choices_elsewhere_are_others(autotuner: Autotuner, tmp_path: Path) -> None:
    autotuner.measure("a case", ("slow", "quick"), print)
    with autotuner.kept_in(tmp_path / "others"):
        assert autotuner.get("a case") is None
    assert autotuner.get("a case") == "quick"


def test_the_fastest_of_cold_runs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    seconds = iter([5.0, 1.0, 2.0, 2.5, 3.0, 2.5])  # direct: 5, 2, 3; onednn: 1, 2.5, 2.5

    def run(name: str) -> None:
        now[0] += next(seconds)

    monkeypatch.setattr(autotune.time, "perf_counter", lambda: now[0])
    assert fastest(("direct", "onednn"), run) == "onednn"


@pytest.mark.parametrize(
    "content", ["", "{", '["quick"]', '{"version": 1, "record": {"a": "magic", "b": 3}}']
)
def test_a_damaged_file_is_measured_again(autotuner: Autotuner, content: str) -> None:
    autotuner.path.parent.mkdir()
    autotuner.path.write_text(content)
    said = pytest.warns(RuntimeWarning, match="it counts as empty, and is written anew")
    with nullcontext() if '"version"' in content else said:
        assert len(autotuner) == 0 and autotuner.get("a") is None


def test_a_folder_that_cannot_be_written_is_no_error(autotuner: Autotuner) -> None:
    with autotuner.kept_in(Path("/proc/no/such/folder")):
        with tuning():
            autotuner.measure("a case", ("slow", "quick"), print)
        assert len(autotuner) == 1
