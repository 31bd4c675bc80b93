"""Bounds on expected losses: valid over simulated calibrations, and one that is too loose is noticed."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, comb, exp, log

import pytest
import torch
from torch import Generator, Tensor

from foveal.calibration.risk.bounds import (
    BETTING,
    BOUNDS,
    CONFORMAL,
    DELTA,
    EMPIRICAL_BERNSTEIN,
    HOEFFDING_BENTKUS,
    Bound,
    betting,
    conformal,
    empirical_bernstein,
    hoeffding_bentkus,
)

Draw = Callable[[int, Generator], Tensor]
TIMES = 250
CONFIDENT = [bound for bound in BOUNDS if bound.promise == "confidence"]


def steady(count: int, draw: Generator) -> Tensor:
    """Small losses that differ little: mean 0.08."""
    return 0.05 + 0.06 * torch.rand(count, generator=draw, dtype=torch.float64)


def rare(count: int, draw: Generator) -> Tensor:
    """Nothing, or everything for one image in fifty: mean 0.02."""
    return (torch.rand(count, generator=draw, dtype=torch.float64) < 0.02).double()


def skewed(count: int, draw: Generator) -> Tensor:
    """Mostly small losses, some large ones: mean 1/11."""
    return torch.rand(count, generator=draw, dtype=torch.float64) ** 10


MEANS: dict[Draw, float] = {steady: 0.08, rare: 0.02, skewed: 1 / 11}


def broken(bound: Bound, losses: Draw, count: int, scale: float) -> float:
    """Share of the simulated calibrations whose bound, times a scale, is below the mean."""
    draw = Generator().manual_seed(1)
    found = [scale * bound.of(losses(count, draw)) < MEANS[losses] for _ in range(TIMES)]
    return sum(found) / TIMES


def most(chance: float) -> float:
    """What a share of TIMES events of a chance does not exceed by luck: three standard errors above it."""
    return chance + 3 * (chance * (1 - chance) / TIMES) ** 0.5


@pytest.mark.parametrize("losses", MEANS)
@pytest.mark.parametrize("bound", CONFIDENT, ids=lambda bound: bound.name)
def test_a_promise_of_confidence_is_broken_as_seldom_as_it_says(bound: Bound, losses: Draw) -> None:
    assert broken(bound, losses, 60, 1.0) <= most(DELTA)


@pytest.mark.parametrize("bound", CONFIDENT, ids=lambda bound: bound.name)
def test_a_bound_of_confidence_that_is_too_loose_by_a_third_is_noticed(bound: Bound) -> None:
    count = 1500 if bound is HOEFFDING_BENTKUS else 400
    assert broken(bound, steady, count, 1.0) <= most(DELTA)
    assert broken(bound, steady, count, 1 / 1.3) > most(DELTA)


def realised(losses: Draw, count: int, alpha: float, scale: float) -> tuple[float, float]:
    """Mean loss of new images over calibrations that choose what share of them is adapted; standard error."""
    draw, found = Generator().manual_seed(2), []
    for _ in range(4 * TIMES):
        share = min(1.0, alpha / (scale * conformal(losses(count, draw))))
        found.append(share * float(losses(1, draw)))
    risk = torch.tensor(found)
    return float(risk.mean()), float(risk.std()) / len(found) ** 0.5


@pytest.mark.parametrize("losses", MEANS)
@pytest.mark.parametrize("count", [9, 60])
def test_conformal_keeps_the_mean_over_calibrations_and_new_images(losses: Draw, count: int) -> None:
    risk, error = realised(losses, count, 0.01, 1.0)
    assert risk <= 0.01 + 3 * error


def test_a_conformal_bound_that_is_too_loose_by_a_third_is_noticed() -> None:
    risk, error = realised(steady, 200, 0.01, 1.0)
    assert risk <= 0.01
    assert risk >= 0.01 * 0.08 / (0.08 + 1 / 201) - 3 * error  # no more is given away than 1 / (n + 1)
    risk, error = realised(steady, 200, 0.01, 1 / 1.3)
    assert risk > 0.01 + 3 * error


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_a_bound_is_above_the_mean_falls_with_images_and_grows_with_losses(bound: Bound) -> None:
    draw = Generator().manual_seed(3)
    losses = steady(400, draw)
    found = [bound.of(losses[:count]) for count in (25, 100, 400)]
    assert 1 >= found[0] > found[1] > found[2] > float(losses.mean())
    assert bound.of(losses) <= bound.of(losses + 0.05)
    assert bound.of(torch.ones(5, dtype=torch.float64)) == 1
    assert bound.of(torch.tensor([0.3], dtype=torch.float64)) <= 1


def test_every_bound_pays_for_rare_images_that_were_not_seen() -> None:
    nothing = torch.zeros(99, dtype=torch.float64)
    assert conformal(nothing) == pytest.approx(1 / 100)
    least = 1 - DELTA ** (1 / 99)  # a coin of this chance shows no heads in 99 with a chance of DELTA
    assert hoeffding_bentkus(nothing) == pytest.approx(least, rel=1e-6)
    assert least < betting(nothing) < 1.5 * least
    assert empirical_bernstein(nothing) == pytest.approx(7 * log(2 / DELTA) / (3 * 98))


@pytest.mark.parametrize(
    ("losses", "heads"),
    [
        ([1.0] * 3 + [0.0] * 47, 3),
        ([0.1] * 30, 3),  # their sum is a little more than 3 in double precision
        ([0.25] * 9, 3),
        ([0.5] * 7, 4),
        ([0.02] * 200, 4),
        ([0.9] * 40 + [1.0], 37),
        ([0.0, 0.01], 1),
    ],
)
@pytest.mark.parametrize("delta", [DELTA, 0.01])
def test_hoeffding_bentkus_is_the_least_mean_with_a_small_p_value(
    losses: list[float], heads: int, delta: float
) -> None:
    count, mean = len(losses), sum(losses) / len(losses)
    assert heads == ceil(round(sum(losses), 9))
    found = hoeffding_bentkus(torch.tensor(losses, dtype=torch.float64), delta)

    def p_values(a: float) -> tuple[float, float]:
        few = sum(comb(count, k) * a**k * (1 - a) ** (count - k) for k in range(heads + 1))
        divergence = mean * log(mean / a) + (1 - mean) * log((1 - mean) / (1 - a))
        return exp(-count * divergence), exp(1) * few

    assert min(p_values(found)) == pytest.approx(delta, rel=1e-6)
    assert min(p_values(found)) <= delta * (1 + 1e-12)  # from above
    assert min(p_values(found - 1e-4)) > delta


def test_empirical_bernstein_is_that_of_the_source() -> None:
    losses = torch.tensor([0.1, 0.3, 0.2, 0.4] * 25, dtype=torch.float64)
    spread = (2 * float(losses.var()) * log(20) / 100) ** 0.5
    assert empirical_bernstein(losses) == pytest.approx(0.25 + spread + 7 * log(20) / 297)


def test_a_bound_that_nothing_is_known_about_is_one() -> None:
    for bound in BOUNDS:
        assert bound.of(torch.ones(40, dtype=torch.float64)) == 1
    assert empirical_bernstein(torch.zeros(1, dtype=torch.float64)) == 1
    assert empirical_bernstein(torch.full((40,), 0.9, dtype=torch.float64)) == 1
    assert betting(torch.full((3,), 0.4, dtype=torch.float64)) == 1


@pytest.mark.parametrize(("count", "delta"), [(100, DELTA), (8, DELTA), (12, 0.3), (60, 0.01)])
def test_betting_needs_capital_of_one_over_delta(count: int, delta: float) -> None:
    losses = steady(count, Generator().manual_seed(4))
    order = torch.randperm(count, generator=Generator().manual_seed(0))
    capital, best, variance, total, spread = 1.0, 0.0, 0.25, 0.5, 0.25
    found = betting(losses, delta)
    for number, loss in enumerate(losses[order].tolist(), start=1):
        stake = min(1.0, (2 * log(1 / delta) / (count * variance)) ** 0.5)
        capital *= 1 - stake * (loss - found)
        best = max(best, capital)
        total += loss
        spread += (loss - total / (number + 1)) ** 2
        variance = spread / (number + 1)
    assert found < 1
    assert best == pytest.approx(1 / delta, rel=1e-6)
    assert best >= (1 - 1e-12) / delta  # from above


def test_betting_sees_no_order_of_files() -> None:
    losses = steady(100, Generator().manual_seed(4))
    sorted_ = [betting(losses.sort(descending=down).values) for down in (True, False)]
    assert sorted_[0] == pytest.approx(sorted_[1], rel=0.05)


def test_betting_draws_the_same_order_whatever_else_is_drawn() -> None:
    losses = skewed(60, Generator().manual_seed(4))
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(betting(losses))
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1] == found[2]


def test_a_gambler_keeps_the_most_that_he_had() -> None:
    """Losses that come last and are large take capital away; the bound is that of the best moment."""
    order = torch.randperm(60, generator=Generator().manual_seed(0))
    losses = torch.zeros(60, dtype=torch.float64)
    without = betting(losses)
    losses[order[-1]] = 1.0
    assert betting(losses) < 1.2 * without


def test_bounds_are_named_once_and_say_what_they_promise() -> None:
    assert len({bound.name for bound in BOUNDS}) == len(BOUNDS) == 4
    promises = {bound.name: bound.promise for bound in BOUNDS}
    assert promises[CONFORMAL.name] == "mean"
    assert {promises[b.name] for b in (HOEFFDING_BENTKUS, EMPIRICAL_BERNSTEIN, BETTING)} == {"confidence"}
