from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from math import inf, nan

import pytest
import torch
from torch import Tensor

from foveal.calibration.risk import RiskSetting, RiskTable
from foveal.calibration.risk.bounds import BETTING, BOUNDS, Bound
from foveal.calibration.risk.coverage import coverage, random_splits
from foveal.calibration.risk.table import choose_mixed, find_setting, needed
from samples import error_of
from simulated import SETTINGS, THRESHOLDS, measured


def table(images: int = 100, noise: float = 0.0) -> RiskTable:
    losses, works = measured(images, noise=noise)
    return RiskTable.fit(THRESHOLDS, works, losses, remaining=losses.sqrt())


@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_on_new_images_the_risk_is_kept_on_average_and_little_is_given_away(
    alpha: float, noise: float
) -> None:
    """The new images are other draws than any that calibrated, many times over."""
    images, risks, spent = 99, [], []
    for seed in range(150):
        losses, works = measured(images + 20, seed, noise)
        chosen = RiskTable.fit(THRESHOLDS, works[:images], losses[:images]).choose(alpha)
        risks.append(float(losses[images:, chosen.index].mean()))
        spent.append(float(works[images:, chosen.index].mean()))
    risk = torch.tensor(risks)
    error = float(risk.std()) / len(risks) ** 0.5
    assert risk.mean() <= alpha + 3 * error
    if not noise:  # Theorem 2: at most 2 / (n + 1) is given away; a step of the settings comes on top
        assert risk.mean() >= alpha - 2 / (images + 1) - 1 / 3 / SETTINGS - 3 * error
        assert sum(spent) / len(spent) < 1


def test_the_bound_is_that_of_the_source() -> None:
    losses = torch.tensor([[0, 0.1, 0.2], [0, 0.0, 0.4], [0, 0.2, 0.3]], dtype=torch.float64)
    rows = RiskTable.fit((0, 1, 2), torch.tensor([1.0, 0.5, 0.3]), losses)
    second, third = (3 / 4 * mean + 1 / 4 for mean in (0.1, 0.3))
    assert rows.choose(third + 1e-9) == RiskSetting(2, 2.0, pytest.approx(0.3), pytest.approx(third))
    assert rows.choose(third - 1e-3) == RiskSetting(1, 1.0, pytest.approx(0.5), pytest.approx(second))
    assert rows.choose(second - 1e-3) == RiskSetting(0, 0.0, 1.0, 0.0)


def test_a_larger_risk_never_costs_more_work() -> None:
    rows = table()
    chosen = [rows.choose(alpha) for alpha in (0.01, 0.02, 0.05, 0.1, 0.2, 1.0)]
    assert all(one.index < other.index and one.work > other.work for one, other in pairwise(chosen))
    assert all(one.bound <= alpha for one, alpha in zip(chosen, (0.01, 0.02, 0.05, 0.1, 0.2, 1), strict=True))
    assert chosen[-1].index == SETTINGS - 1


def test_a_loss_that_falls_again_counts_as_its_largest_so_far() -> None:
    losses = torch.tensor([[0.0, 0.3, 0.1]] * 50 + [[0.0, 0.1, 0.1]] * 50)
    rows = RiskTable.fit((0, 1, 2), torch.tensor([1.0, 0.5, 0.3]), losses)
    assert rows.choose(0.15).dense  # though setting 2 has a mean loss of 0.1
    assert rows.choose(0.22).index == 2
    assert rows.choose(0.22).bound == pytest.approx((100 * 0.2 + 1) / 101, abs=1e-5)


def test_of_the_settings_that_keep_the_risk_the_one_of_least_work_is_taken() -> None:
    losses = torch.tensor([[0.0, 0.0, 0.0, 1.0]] * 30)
    rows = RiskTable.fit((0, 1, 2, 3), torch.tensor([1.0, 0.4, 0.6, 0.1]), losses)
    assert rows.choose(0.05).index == 1
    dearer = RiskTable.fit((0, 1, 2, 3), torch.tensor([1.0, 1.2, 1.1, 0.1]), losses)
    assert dearer.choose(0.05).dense


def test_dense_is_chosen_and_said_if_nothing_else_keeps_the_risk() -> None:
    losses = torch.tensor([[0.0, 0.5]] * 30)
    chosen = RiskTable.fit((0, 1), torch.tensor([1.0, 0.4]), losses).choose(0.1)
    assert chosen.dense
    assert chosen == RiskSetting(0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("alpha", "count"), [(0.01, 99), (0.1, 9), (0.07, 14), (1 / 49, 48), (0.5, 1), (1, 1)]
)
def test_too_few_images_are_refused_with_the_number_that_is_needed(alpha: float, count: int) -> None:
    assert needed(alpha) == count
    losses, works = measured(count)
    assert RiskTable.fit(THRESHOLDS, works, losses).choose(alpha).bound <= alpha
    if count > 1:
        fewer = RiskTable.fit(THRESHOLDS, works[1:], losses[1:])
        assert f"at least {count} calibration images and there are {count - 1};" in error_of(
            lambda: fewer.choose(alpha)
        )


def test_the_smallest_risk_that_an_error_names_is_accepted_and_no_smaller_one() -> None:
    rows = table(70)
    named = float(error_of(lambda: rows.choose(0.001)).rsplit(" ", 1)[1])
    assert rows.choose(named).bound <= named
    assert needed(named - 2e-5) > 70


def test_a_risk_that_is_the_bound_itself_is_kept() -> None:
    losses = torch.tensor([[0.0, 0.25]] * 8 + [[0.0, 0.0]], dtype=torch.float64)  # (2 + 1) / 10
    assert RiskTable.fit((0, 1), torch.tensor([1.0, 0.5]), losses).choose(0.3).index == 1


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, nan])
def test_a_risk_that_is_no_share_is_refused(alpha: float) -> None:
    assert error_of(lambda: table().choose(alpha)).startswith("risk is ")


def test_json_keeps_everything() -> None:
    rows = table(noise=0.05)
    again = RiskTable.from_dict(json.loads(json.dumps(rows.as_dict())))
    assert again == rows
    assert again.choose(0.1) == rows.choose(0.1)
    assert again.estimate(0.3) == rows.estimate(0.3)
    bare = RiskTable((0.0, 1.0), (1.0, 0.3), ((0.0, 0.1),))
    assert RiskTable.from_dict(json.loads(json.dumps(bare.as_dict()))) == bare
    mixed = mixed_table()
    assert RiskTable.from_dict(json.loads(json.dumps(mixed.as_dict()))) == mixed


def test_a_table_of_an_older_profile_chooses_as_it_did() -> None:
    state = table().as_dict()
    del state["mixed"]
    older = RiskTable.from_dict(json.loads(json.dumps(state)))
    assert older.mixed is None
    assert older.choose(0.1) == table().choose(0.1)
    assert older.choose(0.1).share == 1


def test_what_is_no_table_is_refused() -> None:
    state = table(5).as_dict()
    for broken in ({**state, "losses": [[0.0, 2.0]]}, {**state, "works": None}, {"works": [1.0]}, {}):
        message = error_of(lambda broken=broken: RiskTable.from_dict(broken))
        assert message.startswith("this: no risk table (")
    assert "calibrate again" in error_of(lambda: RiskTable((0.0,), (1.0,), ((0.0,),)).estimate(0.1))


def test_losses_are_kept_in_short_numbers_that_are_never_too_small() -> None:
    losses = measured(20)[0]
    kept = torch.tensor(table(20).losses, dtype=torch.float64)
    assert bool((kept >= losses - 1e-10).all())
    assert float((kept - losses).max()) <= 1.001e-5
    assert max(len(repr(x)) for row in table(20).losses for x in row) <= 7
    again = RiskTable.fit(THRESHOLDS, torch.ones(SETTINGS), kept)
    assert again.losses == table(20).losses


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"thresholds": (0.0, 1.0)}, "2 thresholds, 3 works"),
        ({"thresholds": (0.0, 2.0, 1.0)}, "give finite numbers, thresholds from low to high"),
        ({"losses": ((0.0, 0.1, 1 + 1e-9),)}, "losses lie between 0 and 1;"),
        ({"works": (1.0, inf, 0.1)}, "give finite numbers"),
        ({"losses": ((0.0, 0.1, 0.2), (0.1, 0.1, 0.2))}, "put the dense network first"),
        ({"losses": ((0.0, 0.1, 1.2),)}, "losses lie between 0 and 1.2"),
        ({"losses": ((0.0, nan, 0.2),)}, "losses lie between nan"),
        ({"losses": ((0.0, 0.1),)}, "losses of [2] settings"),
        ({"losses": ()}, "losses are (0,)"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(change: dict, says: str) -> None:
    good = {"thresholds": (0.0, 1.0, 2.0), "works": (1.0, 0.5, 0.1), "losses": ((0.0, 0.1, 0.2),)}
    RiskTable(**good)
    assert says in error_of(lambda: RiskTable(**{**good, **change}))


@pytest.mark.parametrize("losses", [torch.zeros(3), torch.zeros(0, 2), torch.zeros(1, 2, 1)])
def test_losses_that_are_no_table_are_refused(losses: Tensor) -> None:
    said = error_of(lambda: coverage(losses, torch.ones(2), 0.5, random_splits(3)))
    assert said.startswith(f"losses are {tuple(losses.shape)}; give [n, L]")


# Mixed with dense


def mixed_table(images: int = 100, noise: float = 0.0) -> RiskTable:
    """A table whose mixed setting was chosen on other images."""
    mixed = choose_mixed(*measured(50, seed=999, noise=noise), images)
    return replace(table(images, noise), mixed=mixed)


@pytest.mark.parametrize("alpha", [0.002, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("images", [4, 40])
def test_mixed_with_dense_few_images_keep_small_risks_on_average(alpha: float, images: int) -> None:
    mixed = choose_mixed(*measured(50, seed=999, noise=0.05), images)
    risks, spent = [], []
    for seed in range(150):
        losses, works = measured(images + 20, seed, 0.05)
        found = RiskTable.fit(THRESHOLDS, works[:images], losses[:images], mixed=mixed).choose(alpha)
        risks.append(found.share * float(losses[images:, found.index].mean()))
        spent.append(found.work)
    risk = torch.tensor(risks)
    assert risk.mean() <= alpha + 3 * float(risk.std()) / len(risks) ** 0.5
    assert max(spent) < 1


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_a_larger_risk_never_costs_more_and_never_adapts_fewer_images(bound: Bound) -> None:
    rows = mixed_table(noise=0.05)
    found = [rows.choose(k / 200, bound) for k in range(1, 201)]
    for one, other in pairwise(found):
        assert other.work <= one.work + 1e-12
        assert one.share <= other.share
        assert one.index == rows.mixed or other.index >= one.index
    assert found[0].share < 0.2 and found[-1].share == 1
    assert all(setting.bound <= k / 200 + 1e-12 for k, setting in enumerate(found, start=1))


def test_the_share_is_the_risk_over_the_bound_of_the_mixed_setting() -> None:
    losses = torch.tensor([[0.0, 0.1, 0.2, 0.1]] * 9, dtype=torch.float64)
    rows = RiskTable.fit((0, 1, 2, 3), torch.tensor([1.0, 0.9, 0.5, 0.4]), losses, mixed=2)
    found = rows.choose(0.05)  # the bound is (1.8 + 1) / 10
    assert (found.index, found.threshold) == (2, 2.0)
    assert found.share == pytest.approx(0.05 / 0.28, abs=1e-5)
    assert found.work == pytest.approx(1 - 0.5 * found.share)
    assert found.adapted_work == pytest.approx(0.5)
    assert 0.05 - 1e-5 < found.bound <= 0.05
    whole = rows.choose(0.28)  # the next one counts with the loss of 0.2 before it, and costs less
    assert (whole.index, whole.share, whole.bound) == (3, 1.0, pytest.approx(0.28))


def test_dense_runs_exactly_where_nothing_that_costs_less_can_keep_the_risk() -> None:
    losses = torch.tensor([[0.0, 0.1, 0.2]] * 9, dtype=torch.float64)
    for works, mixed, dense in (
        ([1.0, 0.5, 0.4], 1, False),
        ([1.0, 0.5, 0.4], 0, True),  # none saved work on the images that chose
        ([1.0, 1.2, 0.4], 1, True),  # it saves none on those that calibrate
        ([1.0, 1.0, 0.4], 1, True),
        ([1.0, 0.5, 0.4], None, True),  # nothing may be mixed, and the first bound is 0.19
    ):
        found = RiskTable.fit((0, 1, 2), torch.tensor(works), losses, mixed=mixed).choose(0.15)
        assert found.dense is dense
        assert not dense or found == RiskSetting(0, 0.0, 1.0, 0.0)
    least = RiskTable.fit((0, 1, 2), torch.tensor([1.0, 0.5, 0.4]), losses, mixed=1).choose(1e-7)
    assert least == RiskSetting(0, 0.0, 1.0, 0.0)  # less than one part of the images


def test_what_is_mixed_saves_most_for_the_bound_of_as_many_images_as_calibrate() -> None:
    losses = torch.tensor([[0.0, 0.01, 0.05]] * 3, dtype=torch.float64)
    works = torch.tensor([[1.0, 0.8, 0.3]] * 3, dtype=torch.float64)
    assert choose_mixed(losses, works, 10_000) == 1  # 0.2 / 0.01 against 0.7 / 0.05
    assert choose_mixed(losses, works, 10) == 2  # with 1 / 11 on top of both
    assert choose_mixed(losses, torch.ones(3, 3), 10) == 0
    for dearer in ([1.2, 1.1, 1.1], [1.2, 1.1, 1.0]):  # than the dense network alone
        assert choose_mixed(losses, torch.tensor([dearer] * 3), 10) == 0


def test_a_mixed_setting_that_there_is_not_is_refused() -> None:
    assert "mixed is setting 2 of 2" in error_of(
        lambda: RiskTable((0.0, 1.0), (1.0, 0.5), ((0.0, 0.1),), mixed=2)
    )


def test_a_confident_bound_gives_whole_settings_in_order_and_stops_at_the_first_that_fails() -> None:
    losses = torch.tensor([[0.0, 0.01, 0.4, 0.02]] * 60, dtype=torch.float64)
    index, share, found = find_setting(losses, torch.tensor([1.0, 0.5, 0.4, 0.1]), 0.2, None, BETTING)
    assert (index, share) == (1, 1.0)
    assert 0.01 < found < 0.2


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_the_setting_is_that_of_the_bound_that_is_wanted(bound: Bound) -> None:
    rows = mixed_table(60)
    found = rows.choose(0.05, bound)
    losses = torch.tensor(rows.losses, dtype=torch.float64)
    assert found.share == pytest.approx(0.05 / bound.of(losses[:, rows.mixed]), abs=1e-5)


def test_the_table_estimates_the_disagreement_of_an_image_from_its_doubt() -> None:
    losses, works = measured(80, noise=0.02)
    rows = RiskTable.fit(THRESHOLDS, works, losses, remaining=losses.sqrt())
    assert rows.estimate(0.0) == 0
    assert rows.estimate(0.5) == pytest.approx(0.25, abs=0.02)


def test_sentences_say_what_to_do_to_their_end() -> None:
    rows = RiskTable((0.0, 1.0), (1.0, 0.5), ((0.0, 0.1),))
    without = "the risk table was measured without remaining gains; calibrate again with them"
    assert error_of(lambda: rows.estimate(0.1)) == without
    first = "losses of setting 0 are not 0; put the dense network first, it agrees with itself"
    assert error_of(lambda: coverage(torch.ones(3, 2), torch.ones(3, 2), 0.5, random_splits(3))) == first
