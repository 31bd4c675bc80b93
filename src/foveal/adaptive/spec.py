"""Everything about an adaptive model besides its weights; JSON beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from foveal.adaptive.preprocess import Preprocess
from foveal.adaptive.probe import NetworkShape
from foveal.adaptive.source import Source
from foveal.calibration.engine import Precision

FORMAT = 1
"""Version of the file."""
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Specification:
    """Everything about an adaptive model besides its weights.

    Attributes:
        name: For people.
        shape: What goes into the network, and what comes out.
        preprocess: What images in 0..1 need.
        dense_modules: Names of the network's submodules that must see the whole map.
        method: Name in `foveal.METHODS`.
        tile: Side of a tile [px].
        coarse_level: Level of the first pass, and the coarsest that occurs.
        precision: What its program computes in.
        classes: Names of the classes, by label.
        palette: Colour of every class, 0..255.
        source: How to make the network again; None if nobody said.
        value_range: Values that are 0 and 1 in image files; those of the kind of file if None.
    """

    name: str
    shape: NetworkShape
    preprocess: Preprocess
    dense_modules: tuple[str, ...]
    method: str
    tile: int
    coarse_level: int
    precision: Precision
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    source: Source | None = None
    value_range: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Specification:
        """Read it from JSON.

        Raises:
            ValueError: It is none, or one of another version.
        """
        if record.get("format") != FORMAT:
            raise ValueError(
                f"it has format {record.get('format')}, and this version of Foveal reads format {FORMAT}"
            )
        try:
            record = {"value_range": None, **record}  # files of version 0.2.0 have none
            values = {field.name: record[field.name] for field in fields(cls)}
            values["shape"] = NetworkShape(**{**values["shape"], "path": tuple(values["shape"]["path"])})
            values["preprocess"] = Preprocess(**values["preprocess"])
            values["source"] = Source(**values["source"]) if values["source"] else None
            values["value_range"] = read_range(values["value_range"])
            for name in ("dense_modules", "classes"):
                values[name] = tuple(map(str, values[name]))
            values["palette"] = tuple(tuple(map(int, colour)) for colour in values["palette"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from None
        return cls(**values)


def read_range(given: Any) -> tuple[float, float] | None:
    """Read the values that are 0 and 1 in image files.

    Raises:
        ValueError: They are no two numbers, the lower one first.
    """
    if given is None:
        return None
    low, high = map(float, given)
    if not low < high:
        raise ValueError(f"the range of values is {low:g} to {high:g}; give the lower one first")
    return low, high
