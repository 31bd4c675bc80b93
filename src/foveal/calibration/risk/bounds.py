"""How large an expected loss may be, from the losses of n images: four bounds, and what each promises.

Losses lie in [0, 1], images are drawn independently from one distribution (for `conformal` exchangeable is
enough). A promise of one of two kinds:

- *mean*: over the draw of the n images **and** of a new one, the expected loss is within the risk. Whoever
  calibrates once may be above it, about as often as below; on average over calibrations it is kept.
- *confidence*: with a chance of 1 - DELTA over the draw of the n images, the expected loss of what was chosen
  is within the risk, for all images to come.

Every bound pays for what n images cannot exclude, rare images of loss 1: `conformal` 1 / (n + 1), the others
at least ln(1 / DELTA) / n, 2.3 times as much. No bound can do without, unless something proves that losses
stay below 1; `table.py` says what does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

DELTA = 0.1
"""Chance that a promise of confidence is broken."""
LARGEST = 1.0
"""Largest loss that an image can have."""
HALVINGS = 40
"""Of the interval that a bound lies in."""


@dataclass(frozen=True)
class Bound:
    """A bound on the expected loss.

    Attributes:
        name: What it is called.
        promise: What holds for a setting whose bound is within the risk.
        of: Returns the bound for losses [n], double precision, in [0, 1].
    """

    name: str
    promise: Literal["mean", "confidence"]
    of: Callable[[Tensor], float]


def conformal(losses: Tensor) -> float:
    """Bound the mean of n + 1 losses, the last of which is not known.

    Source: Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", ICLR 2024, eq. 4.
    """
    return float(losses.sum() + LARGEST) / (len(losses) + 1)


def hoeffding_bentkus(losses: Tensor, delta: float = DELTA) -> float:
    """Return the least mean whose p-value is at most delta; that uses the mean of the losses alone.

    For a mean a and losses of mean r < a the p-value is the smaller one of exp(-n KL(r, a)), with the
    divergence of two coins, and of e P(Binomial(n, a) <= ceil(n r)).

    Source: Bates, Angelopoulos, Lei, Malik and Jordan, "Distribution-Free, Risk-Controlling Prediction Sets",
    JACM 2021, Prop. 5 to 7; used for testing in Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then
    Test", Annals of Applied Statistics 2025.
    """
    count, mean = len(losses), float(losses.mean())
    return _least(lambda a: _hoeffding_bentkus(mean, a, count) <= delta, mean)


def empirical_bernstein(losses: Tensor, delta: float = DELTA) -> float:
    """Bound the mean by the variance of the losses.

    Source: Maurer and Pontil, "Empirical Bernstein Bounds and Sample Variance Penalization", COLT 2009.
    """
    count, doubt = len(losses), math.log(2 / delta)
    if count < 2:
        return LARGEST
    spread = math.sqrt(2 * float(losses.var()) * doubt / count)
    return min(LARGEST, float(losses.mean()) + spread + 7 * doubt / (3 * (count - 1)))


def betting(losses: Tensor, delta: float = DELTA) -> float:
    """Return the least mean that a gambler who bets on smaller losses would have got rich against.

    Against a mean a the capital is the product of 1 - nu_i (loss_i - a); the stake nu_i follows the variance
    of the losses before. If the mean is a or more, the capital exceeds 1 / delta with a chance of at most
    delta (Ville). Losses are taken in a fixed random order: files of one drive come one after the other.

    Source: Waudby-Smith and Ramdas, "Estimating Means of Bounded Random Variables by Betting", JRSS B 2024,
    section 4; in this one-sided form in "Distribution-Free, Risk-Controlling Prediction Sets", Prop. 8.
    """
    count = len(losses)
    losses = losses[torch.randperm(count, generator=Generator().manual_seed(0))]
    number = torch.arange(1, count + 1, dtype=torch.float64)
    means = (0.5 + losses.cumsum(0)) / (number + 1)
    variances = (0.25 + ((losses - means) ** 2).cumsum(0)) / (number + 1)
    before = torch.cat([torch.tensor([0.25], dtype=torch.float64), variances[:-1]])
    stakes = (2 * math.log(1 / delta) / (count * before)).sqrt().clamp(max=1 / LARGEST)

    def rich(mean: float) -> bool:
        return float(torch.log1p(stakes * (mean - losses)).cumsum(0).max()) >= math.log(1 / delta)

    return _least(rich, 0.0)


def _least(holds: Callable[[float], bool], low: float) -> float:
    """Return the least number up to LARGEST from which on something holds, from above; LARGEST if none."""
    high = LARGEST
    if not holds(high):
        return LARGEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _hoeffding_bentkus(mean: float, supposed: float, count: int) -> float:
    """Return the p-value of the hypothesis that the expected loss is `supposed` or more."""
    if mean >= supposed:
        return 1.0
    if supposed >= LARGEST:
        return 0.0
    hoeffding = math.exp(-count * _divergence(mean, supposed))
    return min(hoeffding, math.e * _binomial(math.ceil(count * mean - 1e-9), count, supposed))


def _divergence(a: float, b: float) -> float:
    """Return the Kullback-Leibler divergence of a coin of chance a from one of chance b, a < b < 1."""
    heads = a * math.log(a / b) if a > 0 else 0.0
    return heads + (1 - a) * math.log((1 - a) / (1 - b))


def _binomial(most: int, count: int, chance: float) -> float:
    """Return the chance of at most so many heads of `count` coins."""
    heads = torch.arange(most + 1, dtype=torch.float64)
    ways = math.lgamma(count + 1) - torch.lgamma(heads + 1) - torch.lgamma(count - heads + 1)
    terms = ways + heads * math.log(chance) + (count - heads) * math.log1p(-chance)
    return float(terms.exp().sum())


CONFORMAL = Bound("conformal risk control", "mean", conformal)
HOEFFDING_BENTKUS = Bound("learn then test, Hoeffding-Bentkus", "confidence", hoeffding_bentkus)
EMPIRICAL_BERNSTEIN = Bound("learn then test, empirical Bernstein", "confidence", empirical_bernstein)
BETTING = Bound("learn then test, betting", "confidence", betting)
BOUNDS = (CONFORMAL, HOEFFDING_BENTKUS, EMPIRICAL_BERNSTEIN, BETTING)
