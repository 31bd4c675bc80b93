"""Two networks for the same classes: a small one that a method asks first, beside a large one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TypeVar

from foveal.data.raster import COLOUR
from foveal.hub.checkpoint import Model
from foveal.storage.reading import shorten

UNNAMED = re.compile(r"class[ _]\d+")
"""Name of a class that nobody named."""
M = TypeVar("M", bound=Model)


def with_small(large: M, small: Model) -> M:
    """Give a network a small one for the same classes.

    Raises:
        ValueError: It has other classes, or takes images of other channels.
    """
    ours, theirs = small.card.classes, large.card.classes
    named = not any(UNNAMED.fullmatch(name) for name in (*ours, *theirs))
    if len(ours) != len(theirs) or (named and ours != theirs):
        raise ValueError(
            f"{small.name} knows {len(ours)} classes ({shorten(', '.join(ours), 80)}) and {large.name} "
            f"{len(theirs)} ({shorten(', '.join(theirs), 80)}); give two networks for the same classes"
        )
    channels = [getattr(model.network, "in_channels", COLOUR.channels) for model in (small, large)]
    if channels[0] != channels[1]:
        raise ValueError(
            f"{small.name} takes images of {channels[0]} channels and {large.name} of {channels[1]}; give "
            "two networks for the same images"
        )
    return replace(large, small=small)
