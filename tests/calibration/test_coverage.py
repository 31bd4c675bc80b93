"""Coverage of risks over splits."""

from __future__ import annotations

from itertools import pairwise
from statistics import stdev

import pytest
import torch

from foveal.calibration.risk import RiskTable
from foveal.calibration.risk.bounds import BOUNDS
from foveal.calibration.risk.coverage import coverage, group_splits, random_splits, set_apart
from foveal.calibration.risk.table import choose_mixed
from samples import error_of
from simulated import SETTINGS, THRESHOLDS, measured


def test_a_part_of_every_split_calibrates_and_the_rest_is_tested() -> None:
    losses, works = measured(11, noise=0.3)
    splits = random_splits(11, 5, 0.5, seed=3)
    found = coverage(losses, works, 0.4, splits, mixed=20)
    risks, spent = [], []
    for first, rest in splits:
        assert sorted([*first.tolist(), *rest.tolist()]) == list(range(11))
        setting = RiskTable.fit(THRESHOLDS, works[first], losses[first], mixed=20).choose(0.4)
        risks.append(setting.share * float(losses[rest, setting.index].mean()))
        spent.append(1 - setting.share * (1 - float(works[rest, setting.index].mean())))
    assert (found.calibration, found.test, found.splits) == (6, 5, 5) and len(set(risks)) > 1
    assert found.risk == pytest.approx(sum(risks) / 5, abs=1e-4)
    assert found.work == pytest.approx(sum(spent) / 5, abs=1e-4)
    assert found.error == pytest.approx(stdev(risks) / 5**0.5, abs=1e-4)
    assert found.slack == pytest.approx(0.4 - found.risk)
    assert found.above == sum(risk > 0.4 for risk in risks) / 5


@pytest.mark.parametrize("mixed", [None, 30])
def test_over_splits_the_risk_is_kept_with_little_slack(mixed: int | None) -> None:
    for alpha in (0.02, 0.05, 0.2):
        row = coverage(*measured(150), alpha, random_splits(150, 60), mixed)
        assert row.alpha == alpha
        assert 0 < row.error < 0.01
        assert row.risk <= alpha + 3 * row.error
        if mixed is None:
            assert row.risk >= alpha - 2 / 76 - 1 / 3 / SETTINGS - 3 * row.error


def test_a_promise_of_confidence_is_broken_in_fewer_splits_than_a_mean() -> None:
    losses, works = measured(200)
    rows = {bound.name: coverage(losses, works, 0.05, random_splits(200), 30, bound) for bound in BOUNDS}
    mean = rows["conformal risk control"].above
    assert all(row.above <= 0.1 < mean for row in rows.values() if row.promise == "confidence")


def test_splits_are_those_of_the_seed() -> None:
    one, other, third = (random_splits(10, 3, 0.3, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one, other, strict=True))
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(one, third, strict=True))
    assert [len(first) for first, _ in one] == [3, 3, 3]
    assert [len(x) for x in random_splits(2, 1, 0.01)[0]] == [1, 1]


def test_groups_stay_together_and_every_half_calibrates_once() -> None:
    groups = ["a", "b", "c", "a", "b", "c", "c"]
    splits = group_splits(groups, 20)
    for (first, rest), (next_first, next_rest) in list(pairwise(splits))[::2]:
        assert not {groups[k] for k in first} & {groups[k] for k in rest}
        assert sorted(first.tolist()) == sorted(next_rest.tolist())
        assert sorted(rest.tolist()) == sorted(next_first.tolist())
    few = group_splits(["a"] * 10 + ["b"] * 20, 4)
    assert [len(first) for first, _ in few] in (
        [10, 20, 10, 20],
        [10, 20, 20, 10],
        [20, 10, 10, 20],
        [20, 10] * 2,
    )
    assert not all(torch.equal(first, first.sort().values) for first, _ in few)
    assert "all images are of one group, a" in error_of(lambda: group_splits(["a", "a"]))


def test_a_quarter_of_those_that_calibrate_chooses_what_is_mixed_and_calibrates_nothing() -> None:
    losses, works = measured(40)
    splits = random_splits(40, 3)
    found, mixed = set_apart(splits, losses, works)
    for (chosen, rest), (fewer, same), one in zip(splits, found, mixed, strict=True):
        assert torch.equal(fewer, chosen[5:]) and torch.equal(same, rest)
        assert one == choose_mixed(losses[chosen[:5]], works[chosen[:5]], 15)
    row = coverage(losses, works, 0.05, found, mixed)
    assert row.calibration == 15
    assert row.risk != coverage(losses, works, 0.05, found, 3).risk


def test_coverage_refuses_a_single_split_and_what_a_risk_cannot_be_kept_with() -> None:
    losses, works = measured(99)
    assert error_of(lambda: coverage(losses, works, 0.1, random_splits(99, 1))).startswith("splits is 1")
    assert "needs at least 99" in error_of(lambda: coverage(losses, works, 0.01, random_splits(99, 2)))
