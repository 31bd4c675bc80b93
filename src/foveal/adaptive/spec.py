"""Everything about an adaptive model besides its weights; JSON beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from foveal.adaptive.preprocess import Preprocess
from foveal.adaptive.probe import NetworkShape
from foveal.adaptive.source import Source
from foveal.calibration.engine import Precision
from foveal.methods import METHODS
from foveal.methods.config import LEAST_SCALE
from foveal.storage.names import find
from foveal.storage.reading import refusal, shorten
from foveal.storage.schema import MOST_CLASSES, Colour, Level, Name, Number, Tile, read_as

FORMAT = 1
"""Version of the file."""
BESIDE = "format", "dtype"
"""What the file says besides the specification."""


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
        scale: Share of its sides that an image is shrunk to before all else; 1 for the whole.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    name: Name
    shape: NetworkShape
    preprocess: Preprocess
    dense_modules: tuple[Name, ...]
    method: Name
    tile: Tile
    coarse_level: Level
    precision: Precision
    classes: Annotated[tuple[Name, ...], Field(min_length=2, max_length=MOST_CLASSES)]
    palette: tuple[Colour, ...]
    source: Source | None = None
    value_range: tuple[Number, Number] | None = None
    scale: Annotated[float, Field(ge=LEAST_SCALE, le=1)] = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(
        cls, record: Any, where: object = "the record", kind: type[ValueError] = ValueError
    ) -> Specification:
        """Read it from what JSON of the file `where` held.

        Raises:
            ValueError: It is none, or one of another version.
        """
        version = record.get("format") if isinstance(record, Mapping) else None
        if version != FORMAT:
            said = f"it has format {shorten(version, 20)}, and this version of Foveal reads format {FORMAT}"
            raise kind(refusal(where, "adaptive model", said))
        try:
            known = {key: value for key, value in record.items() if key not in BESIDE}
            made = read_as(cls, known, where, "adaptive model", kind)
            read_range(made.value_range)
            made.preprocess.per_channel(made.shape.in_channels)
            find(made.method, METHODS, "method")
        except ValueError as error:
            raise (
                error if isinstance(error, kind) else kind(refusal(where, "adaptive model", error))
            ) from None
        count = made.shape.classes
        if not len(made.classes) == len(made.palette) == count or made.tile % made.shape.coarsest_stride:
            raise kind(
                refusal(
                    where,
                    "adaptive model",
                    f"it has {len(made.classes)} names, {len(made.palette)} colours and tile {made.tile} for "
                    f"{count} classes and stride {made.shape.coarsest_stride}",
                )
            )
        return made


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
