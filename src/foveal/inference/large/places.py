"""Where the pixels of an image lie on the ground, as far as a result has to repeat it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Georeference:
    """Where pixels lie.

    Attributes:
        transform: Six numbers (a, b, c, d, e, f) of x = a column + b row + c, y = d column + e row + f.
        crs: The coordinate reference system as WKT; empty if the file has none.
    """

    transform: tuple[float, float, float, float, float, float]
    crs: str = ""
