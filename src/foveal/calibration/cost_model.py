"""How long a network takes on this machine: milliseconds as a function of what is computed, from few runs.

An image of P pixels of which the share `work` is computed (the coarse pass and tiles that hang over the edge
included) takes

    adaptive   fixed + per_pixel * P + per_sample * (work * P)
    dense      dense_fixed + dense_per_pixel * P

The coarse pass has no term of its own: its level belongs to what is measured, so its pixels are a fixed share
of P and could not be told from `per_pixel`. Three numbers then need two sizes and two budgets. No number is
below zero (non-negative least squares, Lawson and Hanson 1974), so that a noisy measurement never gives a
time that falls with more work, or a negative one. Errors count relative to the time, so that small images
count as much as large ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from foveal.storage.schema import Side, read_as
from foveal.storage.store import Record

NEGLIGIBLE = 1e-12
"""Sum of squared relative errors that is no reason for one more number in the model."""


@dataclass(frozen=True)
class Measurement:
    """What was measured on one image, in turns.

    Attributes:
        size: Height and width of the image [px].
        dense_ms: Time of the dense network [ms].
        runs: Work, as a share of the dense network's, and time [ms] of every adaptive run.
    """

    size: tuple[Side, Side]
    dense_ms: float
    runs: tuple[tuple[float, float], ...]

    @property
    def pixels(self) -> int:
        """Pixels of the image [px]."""
        return math.prod(self.size)


@dataclass(frozen=True)
class CostModel:
    """Milliseconds of the adaptive and of the dense run, from an image in memory to its labels.

    Attributes:
        fixed: Of every adaptive run [ms].
        per_pixel: Of every pixel of the image, whatever is computed [ms].
        per_sample: Of every sample that is computed [ms].
        dense_fixed: Of every dense run [ms].
        dense_per_pixel: Of every pixel in a dense run [ms].
        error: Root mean square of the relative errors at the measurements.
        rows: The measurements.

    Raises:
        ValueError: A number is negative, or no number.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    fixed: float
    per_pixel: float
    per_sample: float
    dense_fixed: float
    dense_per_pixel: float
    error: float = 0.0
    rows: tuple[Measurement, ...] = ()

    def __post_init__(self) -> None:
        given = {name: value for name, value in asdict(self).items() if name != "rows"}
        for name, value in given.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} of a cost model is {value}; times are finite and not negative")

    @classmethod
    def fit(cls, rows: Sequence[Measurement]) -> CostModel:
        """Fit the model to measurements by non-negative least squares.

        Raises:
            ValueError: There is no adaptive run, or a time is not above 0.
        """
        runs = [(row.pixels, work, ms) for row in rows for work, ms in row.runs]
        dense = [(row.pixels, row.dense_ms) for row in rows]
        if not runs or not all(0 < ms < math.inf for *_, ms in [*runs, *dense]):
            raise ValueError(f"{rows} holds no adaptive run, or a time that is not above 0; measure again")
        ours, wrong = _least_squares([(1, p, work * p) for p, work, _ in runs], [ms for *_, ms in runs])
        theirs, off = _least_squares([(1, p) for p, _ in dense], [ms for _, ms in dense])
        error = math.sqrt((wrong + off) / (len(runs) + len(dense)))
        return cls(ours[0], ours[1], ours[2], theirs[0], theirs[1], error, tuple(rows))

    @property
    def largest(self) -> int:
        """Pixels of the largest image that was measured [px]; 0 if none was."""
        return max((row.pixels for row in self.rows), default=0)

    def predict(self, pixels: int, work: float) -> float:
        """Predict the time of the adaptive run [ms].

        Args:
            pixels: Of the image [px].
            work: Share of the dense work, the decision included.
        """
        return self.fixed + self.per_pixel * pixels + self.per_sample * work * pixels

    def dense(self, pixels: int) -> float:
        """Predict the time of the dense run [ms] on an image of so many pixels."""
        return self.dense_fixed + self.dense_per_pixel * pixels

    def work_for(self, pixels: int, ms: float) -> float:
        """Return the largest work whose predicted time is at most `ms`.

        It may be more than 1, and infinite where work costs nothing; 0 if not even no work fits.
        """
        spare = ms - self.predict(pixels, 0.0)
        if spare < 0:
            return 0.0
        rate = self.per_sample * pixels
        return spare / rate if rate > 0 else math.inf

    def as_record(self) -> Record:
        """Return the model as plain values, for a file."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Record) -> CostModel:
        """Make a model from what `as_record` returned.

        Raises:
            ValueError: A number is missing, unknown, negative or no number; measure again.
        """
        try:
            return read_as(cls, {"rows": None, **record}, "the record", "cost model")
        except ValueError as error:
            raise ValueError(f"{error}; measure again") from None


def _least_squares(terms: Sequence[Sequence[float]], ms: Sequence[float]) -> tuple[list[float], float]:
    """Find numbers of at least 0 that turn the terms of every run into its time.

    With three numbers there are seven sets of numbers that are not 0: the answer is the best of their
    ordinary solutions that is not negative. Where sets explain the times equally well, as for images of one
    size, the smaller one wins, then the one with the later terms.

    Args:
        terms: What is multiplied with the numbers, run by run.
        ms: Time of every run [ms], above 0.

    Returns:
        The numbers [ms per unit of the terms], and the sum of the squared relative errors.
    """
    wanted = torch.ones(len(ms), 1, dtype=torch.float64)
    columns = torch.tensor(terms, dtype=torch.float64) / torch.tensor(ms, dtype=torch.float64)[:, None]
    scale = columns.amax(0)
    columns = columns / scale
    count = len(scale)
    best, error = torch.zeros(count, dtype=torch.float64), float(len(ms))
    for kept in (kept for n in range(count) for kept in combinations(range(count - 1, -1, -1), n + 1)):
        found = _solve(columns[:, kept], wanted)
        wrong = float((columns[:, kept] @ found - wanted).square().sum())
        if bool((found >= 0).all()) and wrong < error - NEGLIGIBLE:
            best, error = torch.zeros_like(best), wrong
            best[list(kept)] = found[:, 0]
    return (best / scale).tolist(), error


def _solve(columns: Tensor, wanted: Tensor) -> Tensor:
    """Solve by least squares, also where columns are equal."""
    return torch.linalg.lstsq(columns, wanted, driver="gelsy").solution
