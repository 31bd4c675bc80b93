"""Losses, works and remaining gains at every threshold, of methods whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from foveal.calibration.risk import RiskTable, measure
from foveal.calibration.risk.measure import ImageLoss, Runs, calibrate_risk, divide, spaced, spread_thresholds
from foveal.calibration.risk.table import choose_mixed
from foveal.methods import CoarseToFineConfig
from foveal.storage.labels import VOID
from samples import error_of

ASKED = CoarseToFineConfig(0.4, "weighted_entropy", 32, 2)
THRESHOLDS = (0.25, 0.5)
SIDE = 10


@dataclass
class Engine:
    """Makes methods that get one row of pixels wrong for every tenth of the threshold, and two of image 7."""

    made: list[tuple[str, Any]] = field(default_factory=list)
    tunes: bool = False
    tuned: list[tuple[int, bool]] = field(default_factory=list)

    def make(self, name: str, config: CoarseToFineConfig) -> Method:
        self.made.append((name, config))
        return Method(self, config.threshold)


@dataclass
class Method:
    engine: Engine
    threshold: float

    def __call__(self, image: Tensor) -> Any:
        number = int(image[0, 0, 0, 0])
        self.engine.tuned.append((number, self.engine.tunes))
        assert torch.is_inference_mode_enabled()
        labels = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
        labels[:, : round(10 * self.threshold) * (1 + (number == 7))] = 1
        work = torch.tensor([1 - self.threshold - number / 1000, 9.0])
        return SimpleNamespace(labels=labels, trace=SimpleNamespace(work=work))

    def remaining_gain(self, image: Tensor, answer: Any) -> Tensor:
        assert answer.labels.shape == (1, SIDE, SIDE)
        return torch.tensor([float(image[0, 0, 0, 0]) + self.threshold, 9.0])


def runs(engine: Engine, loss: ImageLoss | None = None, **given: Any) -> Runs:
    dense = [torch.zeros(SIDE, SIDE, dtype=torch.int64)] * 12
    return Runs(
        engine,  # type: ignore[arg-type]
        ASKED,
        THRESHOLDS,
        lambda index: torch.full((1, 3, 2, 2), float(index)),
        loss or ImageLoss(dense, torch.ones(2)),
        **given,
    )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine()

    @contextmanager
    def tuning() -> Iterator[None]:
        found.tunes = True
        yield
        found.tunes = False

    monkeypatch.setattr(measure, "tuning", tuning)
    return found


def test_every_image_runs_at_every_threshold_and_the_dense_network_comes_first(engine: Engine) -> None:
    told: list[tuple[str, int, int]] = []
    found = runs(engine, report=lambda *words: told.append(words)).measure([3, 7], "risk")
    assert engine.made == [
        ("coarse_to_fine", replace(ASKED, budget=1.0, threshold=threshold)) for threshold in THRESHOLDS
    ]
    assert found.losses.tolist() == [[0, pytest.approx(0.2), 0.5], [0, pytest.approx(0.4), 1.0]]
    assert found.works[:, 0].tolist() == [1, 1]
    assert found.works[:, 1:].tolist() == [pytest.approx([0.747, 0.497]), pytest.approx([0.743, 0.493])]
    assert found.remaining.tolist() == [[0, 3.25, 3.5], [0, 7.25, 7.5]]
    assert {x.dtype for x in (found.losses, found.works, found.remaining)} == {torch.float64}
    assert told == [("risk", 1, 2), ("risk", 2, 2)]


def test_algorithms_are_chosen_on_the_first_image_alone(engine: Engine) -> None:
    runs(engine).measure([5, 2, 9], "risk")
    assert engine.tuned == [(5, True)] * 2 + [(2, False)] * 2 + [(9, False)] * 2


def test_a_loss_without_labels_is_the_disagreement_with_the_image_s_own_dense_answer() -> None:
    dense = [torch.zeros(2, 4, dtype=torch.int64), torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]])]
    loss = ImageLoss(dense, torch.tensor([1.0, 3.0]))
    answer = torch.zeros(1, 2, 4, dtype=torch.int64)
    assert [loss(answer, index) for index in (0, 1)] == [0, pytest.approx(3 / 10)]
    assert loss.known([1, 0, 5]) == [1, 0, 5]


def test_a_loss_with_labels_counts_what_dense_has_right_and_no_padding() -> None:
    dense = [torch.zeros(3, 5, dtype=torch.int64)] * 2
    target = torch.tensor([[0, 0, 1, 0], [0, 0, 0, VOID]])
    loss = ImageLoss(dense, torch.ones(2), [torch.full((2, 4), VOID), target])
    answer = torch.zeros(1, 3, 5, dtype=torch.int64)
    assert loss(answer, 1) == 0  # as wrong as dense is
    answer[:, 2:], answer[:, :, 4:] = 1, 1  # beyond the labels
    assert loss(answer, 1) == 0
    answer[0, 0, 0] = answer[0, 1, 0] = 1
    assert loss(answer, 1) == pytest.approx(2 / 7)
    answer[0, 0, 2] = 1  # what dense has wrong
    assert loss(answer, 1) == pytest.approx(1 / 7)
    assert loss.known([1, 0]) == [1]


@pytest.mark.parametrize(
    ("indices", "count", "kept"),
    [([4, 5, 6, 7, 8], 3, [4, 5, 7]), ([4, 5], 3, [4, 5]), ([1, 2, 3, 4], 2, [1, 3]), ([], 4, [])],
)
def test_indices_are_spaced_evenly(indices: list[int], count: int, kept: list[int]) -> None:
    assert spaced(indices, count) == kept


def test_thresholds_are_quantiles_in_four_digits_each_once() -> None:
    rates = torch.arange(1001, dtype=torch.float64) / 7
    assert spread_thresholds(rates) == [
        float(f"{1000 * q / 7:.4g}") for q in measure.QUANTILES if q != 1.0
    ] + [142.9]
    assert spread_thresholds(torch.tensor([2.0, 2.0, 2.0], dtype=torch.float64)) == [2.0]
    assert spread_thresholds(torch.tensor([1.00004, 1.00001], dtype=torch.float64)) == [1.0]


@pytest.mark.parametrize(
    ("count", "chosen", "calibrating"),
    [(9, [0, 4, 8], [1, 2, 3, 5, 6, 7]), (2, [0], [1]), (1, [0], [0]), (0, [], [])],
)
def test_every_fourth_image_chooses_settings(count: int, chosen: list[int], calibrating: list[int]) -> None:
    assert divide(count) == (chosen, calibrating)


def test_what_is_mixed_is_chosen_on_other_images_than_those_that_calibrate(engine: Engine) -> None:
    told: list[tuple[str, int, int]] = []
    asked = runs(engine, report=lambda *words: told.append(words))
    found = calibrate_risk(asked, [7, 3], [1, 2, 5])
    held, chosen = asked.measure([1, 2, 5], ""), asked.measure([7, 3], "")
    mixed = choose_mixed(chosen.losses, chosen.works, 3)
    expected = RiskTable.fit([0.0, *THRESHOLDS], held.works, held.losses, held.remaining, mixed)
    assert found == expected and found.mixed == mixed
    assert {name for name, *_ in told[:5]} == {"risk", "what is mixed"}
    assert told[:5] == [*(("risk", k, 3) for k in (1, 2, 3)), *(("what is mixed", k, 2) for k in (1, 2))]


def test_what_is_mixed_is_for_the_bound_of_as_many_images_as_calibrate(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        measure, "choose_mixed", lambda losses, works, count: asked.append((len(losses), count)) or 0
    )
    assert calibrate_risk(runs(engine), [7, 3], [1, 2, 5]).mixed == 0
    assert asked == [(2, 3)]


@pytest.mark.parametrize("chosen", [[1, 2], []])
def test_images_that_do_both_run_once(engine: Engine, chosen: list[int]) -> None:
    found = calibrate_risk(runs(engine), chosen, [1, 2])
    assert engine.tuned == [(1, True)] * 2 + [(2, False)] * 2
    assert len(found.losses) == 2 and found.mixed == 2


def test_images_without_labels_neither_choose_nor_calibrate(engine: Engine) -> None:
    blank, zeros = torch.full((SIDE, SIDE), VOID), torch.zeros(SIDE, SIDE, dtype=torch.int64)
    targets = [blank if k % 2 else zeros for k in range(12)]
    labelled = runs(engine, ImageLoss([zeros] * 12, torch.ones(2), targets))
    found = calibrate_risk(labelled, [7, 4], [1, 2, 5, 6])
    assert len(found.losses) == 2
    assert {number for number, _ in engine.tuned} == {2, 4, 6}
    assert error_of(lambda: calibrate_risk(labelled, [4], [1, 3, 5])) == (
        "none of the 3 images that calibrate the risk has a labelled pixel; give more labelled images, or a "
        "risk of disagreement with dense, which needs none"
    )
