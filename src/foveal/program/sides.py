"""Sides of the whole maps that a dense module computes: shares of the sides of the map that it is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd

MOST_DOWN, MOST_UP, MOST_LEAST = 64, 4, 64
"""Bounds of native code: parts that a side is counted in, how many times the given side, and `least`."""


@dataclass(frozen=True)
class Sides:
    """How a side follows from that of the given map: max(least, (up * side + more) // down).

    Attributes:
        up: 0 for sides that are always `least`.
        down: 0 for the given side itself; the others are 0 then, too.
        more: What is added before the division: down - 1 rounds up.
        least: The smallest side.
    """

    up: int = 0
    down: int = 0
    more: int = 0
    least: int = 0

    def of(self, side: int) -> int:
        """Return the side where the given map has `side`."""
        return side if not self.down else max(self.least, (self.up * side + self.more) // self.down)

    def windowed(self, stride: int) -> Sides | None:
        """Return the sides behind windows that keep ceil(side / stride) samples; None beyond the bounds."""
        if stride == 1:
            return self
        up, down, more, least = (self.up, self.down, self.more, self.least) if self.down else (1, 1, 0, 1)
        return _bounded(up, down * stride, more + (stride - 1) * down, -(-least // stride))


OWN = Sides()
"""Those of the given map."""


def _bounded(up: int, down: int, more: int, least: int) -> Sides | None:
    """Return a rule in its lowest terms; None beyond the bounds.

    Where k divides both a and d, floor((a s + b) / d) is floor((a / k s + floor(b / k)) / (d / k)).
    """
    part = gcd(up, down)
    up, down, more = up // part, down // part, more // part
    if (up, down, more) == (1, 1, 0) and least <= 1:
        return OWN
    fits = 1 <= down <= MOST_DOWN and 0 <= up <= MOST_UP * down and 0 <= more < down
    return Sides(up, down, more, least) if fits and 1 <= least <= MOST_LEAST else None


def fitted(pairs: Iterable[tuple[int, int]]) -> Sides | None:
    """Find the rule that gives the second side of every pair for the first; None if there is none.

    Shares of small numbers are tried first, rounded up or down before otherwise.
    """
    known = sorted(set(pairs))
    found = {side for _, side in known}
    if all(given == side for given, side in known):
        return OWN
    if len(found) == 1:
        return Sides(0, 1, 0, found.pop()) if max(found) <= MOST_LEAST else None
    largest, most = known[-1]
    for plain in (True, False):
        for down in range(1, MOST_DOWN + 1):
            for up in range(
                max(1, (most - 1) * down // largest), min((most + 1) * down // largest + 1, 4 * down) + 1
            ):
                if gcd(up, down) > 1:
                    continue
                for more in {0, down - 1} if plain else range(down):
                    rule = _with_least(up, down, more, known)
                    if rule is not None:
                        return rule
    return None


def _with_least(up: int, down: int, more: int, known: list[tuple[int, int]]) -> Sides | None:
    """Complete a rule by the smallest side that it needs; None if it does not fit."""
    off = {side for given, side in known if (up * given + more) // down != side}
    if len(off) > 1:
        return None
    rule = _bounded(up, down, more, max([1, *off]))
    return rule if rule is not None and all(rule.of(given) == side for given, side in known) else None
