"""Adapting to images: what is measured, that no label is read, and self-distillation that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from foveal.calibration import adapt as module
from foveal.calibration.adapt import adapt
from foveal.calibration.engine import find_engine
from foveal.calibration.profile import CalibrationProfile
from foveal.calibration.risk import measure
from foveal.calibration.risk.measure import divide
from foveal.cost import Timing
from foveal.data.dataset import default_palette
from foveal.data.synthetic import CLASSES, street
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.methods import METHODS, CoarseToFineConfig
from foveal.reporting.profile_chart import draw_profile
from foveal.reporting.profile_text import profile_text
from foveal.training.distillation import Unlabelled, distil
from foveal.training.loop import Schedule, resumed_step
from samples import error_of, lively, nano

SIZE = (64, 96)
ASKED = CoarseToFineConfig(0.4, "weighted_entropy", 32, 2)
LOOKS = [ASKED, replace(ASKED, coarse_level=1)]


class Streets:
    """Images of streets; there are no labels to ask for."""

    def __init__(self, count: int, size: tuple[int, int] = SIZE) -> None:
        self.items = [street(seed, size)[0] for seed in range(count)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


def silent(name: str, done: int, total: int) -> None:
    """Report to nobody."""


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Choose no algorithms, take every time to be 1 ms, and train on little."""

    def alternate(runs: dict[str, Any], repeat: int, warmup: int) -> dict[str, Timing]:
        return {name: Timing((1.0,)) for name in runs}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "tuning", nullcontext)
        patch.setattr(measure, "tuning", nullcontext)
        patch.setattr(measure, "QUANTILES", (0.0, 0.3, 0.6, 0.8, 1.0))
        patch.setattr(module, "alternate", alternate)
        patch.setattr("foveal.training.distillation.CROP", 64)
        patch.setattr("foveal.training.distillation.BATCH", 1)
        yield


def fresh() -> Model:
    """A random network that gives streets several classes."""
    torch.manual_seed(0)
    network = lively(nano(len(CLASSES)), Streets(1)[0])
    return Model("tiny", network, Card("swiftnet_nano", CLASSES, default_palette(len(CLASSES))))


@pytest.fixture(scope="module")
def model() -> Model:
    return fresh()


@pytest.fixture(scope="module")
def calls() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def profile(model: Model, calls: list[tuple[str, int, int]]) -> CalibrationProfile:
    return adapt(model, Streets(6), LOOKS, lambda *state: calls.append(state))


def test_what_is_found_is_what_was_asked_for_and_measured(profile: CalibrationProfile) -> None:
    assert (profile.images, profile.config.tile, profile.config.policy) == (6, 32, "weighted_entropy")
    assert profile.config.coarse_level in (1, 2)
    assert len(profile.config.level_gain) == profile.config.coarse_level
    assert max(profile.config.level_gain) == 1 and min(profile.config.level_gain) > 0
    assert len(profile.class_weights) == len(CLASSES)
    assert all(weight > 0 for weight in profile.class_weights)


def test_every_part_of_the_work_is_reported_to_its_end(profile: CalibrationProfile, calls) -> None:
    last = {name: (done, total) for name, done, total in calls}
    assert last["dense answers"] == last["quality over work"] == (6, 6)
    assert (last["what is mixed"], last["risk"]) == ((2, 2), (4, 4))
    assert last["first pass and score"] == (2, 2)


def test_higher_thresholds_cost_less_and_the_last_refines_little(profile: CalibrationProfile) -> None:
    table = profile.risk
    assert table.thresholds[0] == 0 and table.works[0] == 1
    assert (profile.chosen_on, profile.calibrated_on, len(table.losses)) == (2, 4, 4)
    assert all(row[0] == 0 for row in table.losses)
    works = table.works[1:]
    assert all(work <= 1 for work in works)
    assert sorted(works, reverse=True) == list(works)
    look = METHODS["coarse_to_fine"].from_config(nano(), replace(profile.config, budget=0.9)).least_work(SIZE)
    assert look <= works[-1] < look + 0.2 < works[0]
    assert table.curve is not None and list(table.curve.losses) == sorted(table.curve.losses)
    assert table.estimate(0.0) <= table.estimate(10.0)


def test_the_curve_has_controls_and_can_be_shown(profile: CalibrationProfile, tmp_path: Path) -> None:
    rows = {(row.method, row.budget): row for row in profile.curve}
    assert rows["dense", 1.0].agreement == rows["dense", 1.0].work == 1
    assert rows["dense", 1.0].disagreement == 0
    budgets = {budget for method, budget in rows if method == "coarse_to_fine"}
    assert budgets == {budget for method, budget in rows if method == "random"} >= {0.4, 0.8}
    for (_, budget), row in rows.items():
        assert 0 <= row.disagreement <= 1 and row.images == 6
        assert row.work <= budget + 32**2 / (64 * 96) + 1e-4
    text = profile_text(profile, Path("x.profile.json"), "")
    for word in (
        "coarse to fine",
        "at random",
        "balanced risk",
        "risk 1.0%",
        "% of the images adapted",
        "2 images chose settings, 4 others calibrated",
        "the risk is of disagreement with dense",
        "x.profile.json",
    ):
        assert word in text
    pytest.importorskip("matplotlib")
    draw_profile(profile.curve, tmp_path / "fit.png")
    draw_profile(profile.curve[:1], tmp_path / "one.png")
    assert (tmp_path / "fit.png").stat().st_size > (tmp_path / "one.png").stat().st_size > 1000


def test_a_coarse_level_that_is_given_is_kept_and_the_same_images_give_the_same_fit(model: Model) -> None:
    asked = replace(ASKED, coarse_level=1, policy="margin")
    first, second = (adapt(model, Streets(1), [asked], silent) for _ in range(2))
    assert first == second
    assert (first.config.coarse_level, first.config.policy, len(first.config.level_gain)) == (1, "margin", 1)


def test_images_of_different_sizes_share_budgets_that_all_can_pay(model: Model) -> None:
    images = Streets(1)
    images.items.append(street(1, (40, 50))[0])
    found = adapt(model, images, [replace(ASKED, coarse_level=1)], silent)
    # The first look at the small one takes 32 x 32 of 40 x 50 px, 0.51 of the dense work.
    assert {row.budget for row in found.curve if row.method == "random"} == {0.55, 0.65, 0.8}


@pytest.mark.parametrize(
    ("images", "changes", "message"),
    [
        (0, {}, "there are no images to adapt to"),
        (1, {"policy": "detail"}, "given detail"),
        (1, {"policy": "entropi"}, "given entropi"),
        (1, {"coarse_level": 0}, "coarse_level is 0"),
        (1, {"tile": 20}, "give a multiple of 32"),
        (1, {"tile": 128, "coarse_level": 1}, "the smallest image has 64x96 px, and with tiles of 128 px"),
    ],
)
def test_what_cannot_be_measured_is_refused(model: Model, images: int, changes: dict, message: str) -> None:
    assert message in error_of(lambda: adapt(model, Streets(images), [replace(ASKED, **changes)], silent))


def test_what_keeps_a_risk_was_chosen_on_other_images(profile: CalibrationProfile, model: Model) -> None:
    """Other images that calibrate change losses, and nothing that says what a loss is of."""
    images = Streets(6)
    for index in (1, 2, 3, 5):
        images.items[index] = street(100 + index, SIZE)[0]
    other = adapt(model, images, LOOKS, silent)
    assert other.risk.losses != profile.risk.losses
    for one in (other, profile):
        assert one.risk.mixed
    assert other.config == profile.config
    assert other.class_weights == profile.class_weights
    assert (other.risk.thresholds, other.risk.mixed) == (profile.risk.thresholds, profile.risk.mixed)


@pytest.mark.parametrize(
    ("count", "chosen", "held"), [(1, [0], [0]), (2, [0], [1]), (6, [0, 4], [1, 2, 3, 5])]
)
def test_every_fourth_image_chooses(count: int, chosen: list[int], held: list[int]) -> None:
    assert divide(count) == (chosen, held)


def test_a_risk_of_labels_is_of_the_error_beyond_dense(profile: CalibrationProfile, model: Model) -> None:
    labels = [street(seed, SIZE)[1] for seed in range(6)]
    found = adapt(model, Streets(6), LOOKS, silent, labels=labels)
    assert (found.risk_of, profile.risk_of) == ("labels", "dense")
    assert (found.config, found.class_weights) == (profile.config, profile.class_weights)
    losses, others = (torch.tensor(p.risk.losses) for p in (found, profile))
    assert not torch.equal(losses, others)
    dense = [dense_labels(model, image) for image in Streets(6).items]
    assert adapt(model, Streets(6), LOOKS, silent, labels=dense).risk == profile.risk


def test_images_without_a_label_do_not_calibrate_a_risk_of_labels(model: Model) -> None:
    labels = [street(seed, SIZE)[1] for seed in range(6)]
    labels[1] = torch.full_like(labels[1], 255)
    found = adapt(model, Streets(6), LOOKS, silent, labels=labels)
    assert found.calibrated_on == 3
    nothing = [torch.full_like(labels[1], 255)] * 6
    said = error_of(lambda: adapt(model, Streets(6), LOOKS, silent, labels=nothing))
    assert said.startswith("none of the 4 images that calibrate the risk has a labelled pixel")


def dense_labels(model: Model, image: Tensor) -> Tensor:
    with torch.inference_mode():
        return find_engine(model).dense()(image[None]).labels[0].clone()


# Self-distillation


SCHEDULE = Schedule(2, 1e-3, 0.5, warmup=1, average=0.5, freeze_norms=True, save_every=1)
ONE = replace(ASKED, coarse_level=1)


@pytest.fixture(scope="module")
def whole(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, list[dict[str, float]]]:
    """A run that was not interrupted, and what it reported."""
    values: list[dict[str, float]] = []
    run = tmp_path_factory.mktemp("whole")
    return distil(model, Streets(2), ONE, SCHEDULE, run, lambda step, found: values.append(found)), values


def weights(model: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def test_a_copy_is_trained_without_labels_and_the_given_network_stays(model: Model, whole) -> None:
    before, made = weights(model), weights(whole[0])
    assert all(torch.equal(value, before[name]) for name, value in weights(fresh()).items())
    assert any(not torch.equal(value, before[name]) for name, value in made.items())
    assert not whole[0].network.training
    assert len(whole[1]) == 2
    for found in whole[1]:
        assert found["dense"] == found["coarse"] == found["refined"] == 0
        assert found["coarse_consistency"] > 0 and found["refined_consistency"] > 0


def test_an_interrupted_self_distillation_ends_with_the_same_weights(
    model: Model, whole, tmp_path: Path
) -> None:
    def stop(step: int, values: dict[str, float]) -> None:
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(model, Streets(2), ONE, SCHEDULE, tmp_path, stop)
    assert resumed_step(tmp_path) == 1
    steps: list[int] = []
    again = distil(model, Streets(2), ONE, SCHEDULE, tmp_path, lambda step, values: steps.append(step))
    assert steps == [1]
    expected = weights(whole[0])
    assert all(torch.equal(value, expected[name]) for name, value in weights(again).items())


def test_images_without_labels_have_void_ones() -> None:
    data = Unlabelled(Streets(2))
    image, labels = data[1]
    assert (len(data), image.shape, labels.shape) == (2, (3, *SIZE), SIZE)
    assert set(labels.flatten().tolist()) == {255}
