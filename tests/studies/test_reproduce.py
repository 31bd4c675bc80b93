"""The loop over experiments, and what it writes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from PIL import Image

from reproduction import tools
from samples import error_of
from studies import segblocks as package
from studies.segblocks import EXPERIMENTS, Study, choose_experiments, reproduce
from studies.segblocks.experiment import Experiment
from studies.segblocks.experiments import gmacs
from studies.segblocks.networks import Networks
from studies.segblocks.record import write_experiment, write_index
from studies.segblocks.rows import BY_TARGET, HIDDEN, as_columns, as_keys, stored_as
from studies.segblocks.table import markdown

STORED = Path(__file__).parents[2] / "benchmarks" / "segblocks"


@dataclass(frozen=True)
class Score:
    miou: float


@dataclass(frozen=True)
class Mixed:
    name: str = field(metadata=stored_as("class"))
    count: int = field(metadata=HIDDEN)
    targets: dict[float, Score] = field(metadata=BY_TARGET)
    note: str | None = None


def test_rows_are_stored_by_key_and_tables_leave_out_what_is_hidden() -> None:
    row = Mixed("road", 3, {0.4: Score(0.5), 0.25: Score(0.25)})
    shown = {"class": "road", "miou_0.4": 0.5, "miou_0.25": 0.25, "note": None}
    assert as_columns(row) == shown
    assert list(as_keys(row).items()) == [("class", "road"), ("count", 3), *list(shown.items())[1:]]
    assert as_keys(Score(0.5)) == asdict(Score(0.5))


def test_a_failing_experiment_does_not_stop_the_others_and_written_ones_are_kept(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def good(networks: Networks) -> list[Score]:
        ran.append("good")
        return [Score(0.5)]

    def bad(networks: Networks) -> list[Score]:
        raise RuntimeError("nothing\nworks")

    experiments = {
        "bad": Experiment("Bad", "It fails.", bad),
        "good": Experiment("Good", "It runs.", good),
    }
    monkeypatch.setattr(package, "EXPERIMENTS", experiments)
    monkeypatch.setattr(package, "check_plots", lambda: None)
    study = replace(study, out=tmp_path / "out")
    outcome = reproduce(study, tools())
    assert (outcome.written, list(outcome.failed)) == (["good"], ["bad"])
    index = (study.out / "README.md").read_text()
    assert "bad failed: RuntimeError: nothing works" in index and "| 50.0 |" in index
    assert reproduce(study, tools(), ["good"]).kept == ["good"]
    assert reproduce(study, tools(), ["good"], again=True).written == ["good"]
    assert ran == ["good", "good"]
    record = json.loads((study.out / "good.json").read_text())
    assert (record["rows"], record["command"]) == ([{"miou": 0.5}], "foveal test")
    assert {"machine", "threads", "torch", "commit", "study", "seconds"} <= set(record)


def test_unknown_experiments_are_refused_with_a_suggestion() -> None:
    assert "did you mean 'main_table'" in error_of(lambda: choose_experiments(["maintable"]))
    assert "no experiment is named" in error_of(lambda: choose_experiments([]))
    assert choose_experiments(["classes", "main_table"]) == ["main_table", "classes"]
    assert choose_experiments(None) == list(EXPERIMENTS)


def test_tables_show_percent_deviation_and_what_is_missing() -> None:
    rows = [{"network": "dense", "miou": 0.5, "miou_std": 0.01, "ms": None}, {"network": "b", "gmacs": 2.0}]
    head, _, first, second = markdown(rows).splitlines()
    assert head == "| network | mIoU [%] | ms | GMAC |"
    assert first == "| dense | 50.0 ± 1.0 | – | – |"
    assert second == "| b | – | – | 2 |"
    counted = markdown([{"macs": 1_500_000_000, "source": "Table I"}, {"macs": None, "source": "Table I"}])
    assert counted.splitlines()[2:] == ["| 1.5 |", "| – |", "", "Source: Table I."]
    assert markdown([]) == ""


@pytest.mark.parametrize("name", sorted({*EXPERIMENTS} - {"classes"}))  # whose keys depend on targets
def test_rows_that_were_stored_are_rows_of_the_experiment(name: str) -> None:
    (kind,) = get_args(get_type_hints(EXPERIMENTS[name].run)["return"])
    kinds = {len(fields(found)): found for found in get_args(kind) or (kind,)}
    stored = json.loads((STORED / f"{name}.json").read_text())["rows"]
    assert stored
    for row in stored:
        again = as_keys(kinds[len(row)](**row))
        assert list(again.items()) == list(row.items())


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_every_experiment_says_what_it_is_and_tables_of_the_paper_can_be_printed(name: str) -> None:
    experiment = EXPERIMENTS[name]
    assert experiment.title and experiment.note.endswith(".")
    lines = markdown([as_columns(row) for row in experiment.paper]).splitlines()
    printed = [line for line in lines if line.startswith("|")]
    assert not experiment.paper or len(printed) == len(experiment.paper) + 2


def test_figures_are_drawn_beside_the_table(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    study = Study(tmp_path, quick=True)
    write_experiment(study, "gmacs", EXPERIMENTS["gmacs"], gmacs.measure(), {"command": "", "seconds": 0.0})
    with Image.open(tmp_path / "gmacs.png") as picture:
        assert min(picture.size) >= 500
    assert "![" in (tmp_path / "gmacs.md").read_text()
    index = write_index(study, EXPERIMENTS, {}).read_text()
    assert '<a id="gmacs"></a>' in index and "hardly trained" in index
