"""Where the logits are in what a network returns, and the first line of what it raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from foveal.tiles import TileTensor

NAMES = "out", "logits"
"""Where logits are looked for first in what a network returns."""

Path = tuple[str | int, ...]
"""Keys that lead to the logits in what a network returns; one that begins with a point is an attribute."""


def logits_of(answer: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the logits in what a network returned, and a note where they are if it is more than them.

    Raises:
        ValueError: There are none.
    """
    path = path_of(answer)
    if not path:
        return answer, ()
    place = "".join(key if isinstance(key, str) and key[0] == "." else f"[{key!r}]" for key in path)
    return follow(answer, path), (f"of the {type(answer).__name__} it returns, {place} is taken for logits",)


def path_of(answer: Any) -> Path:
    """Find the logits in what a network returned.

    Raises:
        ValueError: There are none.
    """
    path = find_logits(answer)
    if path is None:
        raise ValueError(
            f"the network returns {describe(answer)}; give one that returns logits [N, K, H, W], a dict or "
            'tuple that holds them (key "out" or "logits"), or an object with .logits'
        )
    return path


def follow(answer: Any, path: Path) -> Any:
    """Return the logits in what a network returned."""
    for key in path:
        answer = getattr(answer, key[1:]) if isinstance(key, str) and key[0] == "." else answer[key]
    return answer


def find_logits(answer: Any) -> Path | None:
    """Find the logits in what a network returned: those it names, else the first tensor of 4 dimensions."""
    if isinstance(answer, Tensor | TileTensor):
        return () if answer.ndim == 4 else None
    for key, value in sorted(_parts(answer), key=lambda part: str(part[0]).lstrip(".") not in NAMES):
        inner = find_logits(value)
        if inner is not None:
            return key, *inner
    return None


def describe(answer: Any) -> str:
    """Say what a network returned."""
    if isinstance(answer, Tensor | TileTensor):
        return f"a tensor {list(answer.shape)}"
    parts = [f"{key!r}: {describe(value)}" for key, value in _parts(answer)]
    return f"a {type(answer).__name__}" + (f" of {', '.join(parts)}" if parts else "")


def _parts(answer: Any) -> Iterator[tuple[str | int, Any]]:
    """List what a structure holds, by key."""
    if isinstance(answer, Mapping):
        yield from ((key, value) for key, value in answer.items() if isinstance(key, str | int))
    elif isinstance(answer, list | tuple):
        yield from enumerate(answer)
    elif hasattr(answer, "logits"):
        yield ".logits", answer.logits


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
