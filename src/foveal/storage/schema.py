"""Values from files as what they must be: types, bounds and members are checked by the fields of a class."""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError

from foveal.storage.reading import refusal, shorten

T = TypeVar("T")

MOST_TILE, MOST_LEVEL, MOST_CLASSES, MOST_CHANNELS, MOST_STRIDE = 4096, 7, 255, 64, 1024
"""As programs have them [px, level, count]: a label is a byte, and 255 is void."""
MOST_NAME = 1000

Tile = Annotated[int, Field(ge=1, le=MOST_TILE)]
Level = Annotated[int, Field(ge=0, le=MOST_LEVEL)]
Side = Annotated[int, Field(ge=1, le=1 << 20)]
Stride = Annotated[int, Field(ge=1, le=MOST_STRIDE)]
Byte = Annotated[int, Field(ge=0, le=255)]
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Name = Annotated[str, Field(max_length=MOST_NAME)]
Colour = tuple[Byte, Byte, Byte]


def read_as(form: type[T], state: Any, where: object, what: str, kind: type[ValueError] = ValueError) -> T:
    """Make an object of a class from what JSON held.

    Args:
        form: A dataclass, or any type that pydantic knows; what its fields say is checked strictly.
        state: Lists, dicts, strings and numbers.
        where: File; the message begins with it.
        what: What it should hold, in the singular.
        kind: Error to raise.

    Raises:
        ValueError: A member is missing, of another type, or beyond its bounds; the message says which.
    """
    try:
        made: T = _adapter(cast(Any, form)).validate_json(json.dumps(state), strict=True)
    except ValidationError as error:
        raise kind(refusal(where, what, _first(error))) from None
    except (ValueError, TypeError, OverflowError, LookupError) as error:
        raise kind(refusal(where, what, error)) from None
    return made


@cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    return TypeAdapter(form)


def _first(error: ValidationError) -> str:
    """Say what is wrong first, and where."""
    found = error.errors(include_url=False)[0]
    place = ".".join(map(str, found["loc"]))
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    said = found["msg"][0].lower() + found["msg"][1:]
    given = "" if found["type"] == "missing" else f" is {shorten(repr(found['input']), 60)}"
    return f"{place or 'it'}{given}: {said}"
