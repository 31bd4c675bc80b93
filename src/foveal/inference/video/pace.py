"""How much of the dense work the next frame may take, from what the frames before took.

A pace is asked before a frame and told after it. What it decides follows from what it was told alone: the
clock is the caller's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]

SAVED = 100
"""Frames whose mean work can be saved up at most."""
SPELL = 8
"""What is saved is spent at this rate: an eighth of it a frame."""
START = 0.25
"""Share of a first frame, of whose time nothing is known."""
RECENT = 32
"""Frames that the time of work is read from."""
JUDGED = 100
"""Frames that the margin for what no work explains is read from."""
KEPT_IN = 0.95
"""Share of the frames that should be within the limit."""
BUSY = 0.01
"""Work from which on a frame says what work takes."""
APART = 0.1
"""Difference of work, as a share of the most, from which on two frames tell its time from the fixed one."""
PAIRS = 8
"""Least number of such pairs."""
GROWTH = 1.5
"""The next frame may take so many times the most that was done in time."""


class Pace(Protocol):
    """Says what a frame may take."""

    def allow(self) -> float:
        """Return the share of the dense work that the next frame may take; it may be beyond 0..1."""

    def took(self, work: float, ms: float) -> None:
        """Count a frame: what it took of the dense work, and its time [ms]."""


class LongRun:
    """Keeps a mean over the frames: what still moments leave is saved for busy ones (a token bucket).

    Over any n frames the work is at most n times the mean, and what can be saved, and once what a frame took
    beyond what it was allowed: a first frame that is seen in full is paid back by those after it, which have
    at least half of the mean.

    Args:
        mean: Share of the dense work of a frame, in the mean.
        saved: Frames whose mean can be saved.
    """

    def __init__(self, mean: float, saved: int = SAVED) -> None:
        self.mean, self.most = mean, mean * saved
        self.left = 0.0

    def allow(self) -> float:
        """Return the mean, and a part of what is saved."""
        return max(self.mean / 2, self.mean + self.left / SPELL)

    def took(self, work: float, ms: float) -> None:
        """Save what a frame left of the mean, or take from what is saved."""
        self.left = min(self.most, self.left + self.mean - work)


class Latency:
    """Keeps the time of 95 % of the frames within a limit.

    Time is taken for a line over work, fitted to the last frames by the median of slopes (Theil and Sen), so
    that single frames that took long hardly count. What the line does not explain is a margin: the 95 %
    quantile of measured over foretold time. Where the works are too alike to tell the fixed part of the time
    from the other, the line is only scaled.

    Args:
        limit: Time of a frame [ms].
        start: Share of a first frame.
    """

    def __init__(self, limit: float, start: float = START) -> None:
        self.limit, self.start, self._reach = limit, start, start
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._ratios: deque[float] = deque(maxlen=JUDGED)
        self._line: tuple[float, float] | None = None

    def allow(self) -> float:
        """Return the largest work whose time, with the margin, is within the limit."""
        if self._line is None:
            return self.start
        fixed, slope = self._line
        margin = float(np.quantile(self._ratios, KEPT_IN, method="higher")) if self._ratios else 1.0
        return min((self.limit / margin - fixed) / slope, GROWTH * self._reach)

    def took(self, work: float, ms: float) -> None:
        """Count a frame."""
        if self._line is not None and work >= BUSY:
            self._ratios.append(ms / (self._line[0] + self._line[1] * work))
        if ms <= self.limit:
            self._reach = max(self._reach, work)
        self._recent.append((work, ms))
        works, times = (np.array(column) for column in zip(*self._recent, strict=True))
        self._line = _fitted(works, times) or _scaled(self._line, works, times)


def least(paces: Sequence[Pace], most: float) -> float:
    """Return what all paces allow, `most` at most."""
    return min([most, *(pace.allow() for pace in paces)])


def _fitted(works: Numbers, times: Numbers) -> tuple[float, float] | None:
    """Fit the fixed time and the time of all work; None where the works are too alike."""
    first, second = np.triu_indices(len(works), 1)
    run, rise = works[second] - works[first], times[second] - times[first]
    telling = np.abs(run) > max(APART * float(works.max()), BUSY)
    if int(telling.sum()) < PAIRS:
        return None
    slope = float(np.median(rise[telling] / run[telling]))
    fixed = float(np.median(times - slope * works))
    return (fixed, slope) if slope > 0 and fixed >= 0 else None


def _scaled(line: tuple[float, float] | None, works: Numbers, times: Numbers) -> tuple[float, float] | None:
    """Bring a line to the level of the frames that did work; through 0 where there is none."""
    busy = works >= BUSY
    if not busy.any():
        return line
    fixed, slope = line or (0.0, 1.0)
    factor = float(np.median(times[busy] / (fixed + slope * works[busy])))
    return fixed * factor, slope * factor
