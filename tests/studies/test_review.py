"""The review of all methods: what it compares, and what it says of a row."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from commands import refused, run
from foveal.evaluation.rows import EvalRow
from foveal.evaluation.tally import Entry
from foveal.methods import METHODS, AdaptiveSegmenter, Prediction, Step, Trace
from samples import error_of
from studies import review as package
from studies.review import SCENES, Review, review
from studies.review.cases import FINE, ORACLE, STREET, VIDEO, Case
from studies.review.page import measured
from studies.review.rows import DENSE, STATIC, ReviewRow, compared, row_of, whole_row
from studies.review.scenes import Scene
from studies.review.settings import brief, present
from studies.review.steadiness import steadiness
from studies.segblocks import Outcome

ROOT = Path(__file__).parents[2]


def found(work: float, miou: float, ms: float, method: str = "", budget: float = 1.0) -> EvalRow:
    return EvalRow(
        method=method, policy="", budget=budget, work=work, work_max=work + 0.02, miou=miou, iou={},
        pixel_accuracy=None, boundary_f=None, agreement=None, macs=1, ms=ms, images=1,
    )  # fmt: skip


def test_every_method_of_the_package_is_compared() -> None:
    compared_here = {case.method for case in (*STREET, *FINE, *VIDEO)}
    assert compared_here == set(METHODS) - {"dense"}


def test_a_row_says_what_a_method_loses_and_what_of_its_saving_is_time() -> None:
    dense = found(1, 0.6, 100)
    row = row_of(Case("ours", "coarse_to_fine"), found(0.5, 0.59, 60, budget=0.5), dense, compiled=True)
    assert (row.lost, row.faster, row.over) == (
        pytest.approx(0.01),
        pytest.approx(1.667),
        pytest.approx(0.02),
    )
    assert row.kept == pytest.approx((1 - 0.6) / 0.5, abs=1e-3)
    assert (row.training, row.decides_for) == ("nothing", "tile")
    alone = row_of(Case("all", "coarse_to_fine"), found(1, 0.6, 100), dense, compiled=True)
    assert alone.kept is None, "nothing is saved"


def test_rows_stand_beside_whole_images_at_equal_work_and_time_and_beside_the_oracle() -> None:
    dense = found(1, 0.6, 100)
    rows = [
        whole_row(DENSE, "dense", dense, dense, True),
        whole_row(STATIC, "shrunk", found(0.25, 0.5, 25), dense, True),
        row_of(Case("ours", "coarse_to_fine"), found(0.5, 0.58, 50, budget=0.5), dense, True),
        row_of(Case(ORACLE, "segblocks", control=True), found(0.5, 0.65, 50, budget=0.5), dense, True),
    ]
    ours = next(row for row in compared(rows) if row.method == "ours")
    assert ours.beside_static == pytest.approx(0.58 - 0.55), "half way on the logarithm of work"
    assert ours.in_time == pytest.approx(0.58 - 0.55)
    assert ours.to_oracle == pytest.approx(0.07)
    text = measured(compared(rows))
    assert "| ours |" in text and "+3.0" in text and "flicker" not in text


class Columns(AdaptiveSegmenter):
    """Labels by the column within its own view: answers do not move with the picture."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.network, self.period = torch.nn.Identity(), period

    from_config = classmethod(lambda cls, network, config, resources=None: cls(8))  # type: ignore[assignment]

    def forward(self, image: Tensor, memory: object = None) -> Prediction:
        size = image.shape[2], image.shape[3]
        on = (torch.arange(size[1]) // self.period % 2).float().expand(1, 1, *size)
        return Prediction(torch.cat([on, 1 - on], 1), size, Trace((Step("all", torch.ones(1).double()),)))

    def decide(self, image: Tensor) -> None:
        return None

    def dense(self) -> torch.nn.Module:
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        return 1.0


def test_answers_that_stay_with_the_grid_are_not_steady() -> None:
    image = torch.rand(3, 64, 96)
    still = Entry("", "", 1.0, lambda target: Columns(1000))
    stuck = Entry("", "", 1.0, lambda target: Columns(8))
    assert steadiness(still, [image], (0, 8, 16)) == 1.0
    assert steadiness(stuck, [image], (0, 8)) == 0.0
    assert steadiness(stuck, [image], (0, 16)) == 1.0, "the period of the columns"
    assert "views are moved by 40 px" in error_of(lambda: steadiness(still, [image], (0, 40)))
    assert "no images" in error_of(lambda: steadiness(still, [], (0, 8)))


def test_scenes_are_kept_and_a_failing_one_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(asked: Review, report: object) -> list[ReviewRow]:
        raise ValueError("no such\ndata")

    def works(asked: Review, report: object) -> list[ReviewRow]:
        return [whole_row(DENSE, "dense", found(1, 0.5, 10), found(1, 0.5, 10), True)]

    scenes = {"bad": Scene("Bad", "It fails.", broken), "good": Scene("Good", "It runs.", works)}
    monkeypatch.setattr(package, "SCENES", scenes)
    asked = Review(tmp_path / "out")
    outcome = review(asked, Outcome(), command="foveal test")
    assert (outcome.written, outcome.failed) == (["good"], {"bad": "ValueError: no such data"})
    stored = json.loads((asked.out / "good.json").read_text())
    assert stored["command"] == "foveal test" and stored["rows"][0]["miou"] == 0.5
    assert "bad failed" in (asked.out / "README.md").read_text()
    assert review(asked, Outcome(), ["good"]).kept == ["good"]
    assert "did you mean 'good'" in error_of(lambda: review(asked, Outcome(), ["goof"]))


def test_the_networks_are_those_of_the_checkout(tmp_path: Path) -> None:
    asked = present(Review(tmp_path), ROOT)
    assert Path(asked.exits).is_file() and Path(asked.weeds_network).is_file()
    assert "needs the networks of the whole repository" in error_of(
        lambda: present(Review(tmp_path), tmp_path)
    )
    small = brief(replace(asked, limit=100))
    assert small.limit == 6 and len(small.budgets) == 1


def test_the_command_refuses_what_is_about_trainings() -> None:
    said = refused(run("reproduce", "review", "--steps", 3, "--seeds", 2))
    assert "takes no --steps, --seeds" in said
    assert "did you mean 'street'" in refused(run("reproduce", "review", "--quick", "--parts", "streets"))
    assert set(SCENES) == {"street", "weeds", "video"}
