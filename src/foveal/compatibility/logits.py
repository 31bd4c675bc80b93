"""The logits in what a network returns, and the first line of what it raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from foveal.tiles import TileTensor
from foveal.tiles.nested import leaves


def logits_of(answer: Any) -> tuple[Any, tuple[str, ...]]:
    """Find the logits in what a network returns, and say so if it is more than them.

    Raises:
        ValueError: It holds no tensor.
    """
    if isinstance(answer, Tensor | TileTensor):
        return answer, ()
    found = [leaf for leaf in leaves(answer) if isinstance(leaf, Tensor | TileTensor)]
    if isinstance(answer, Mapping):
        found = [answer["out"]] if "out" in answer else found
    if not found:
        raise ValueError(f"the network returns a {type(answer).__name__} without a tensor; logits are needed")
    note = f"the network returns a {type(answer).__name__}; wrap it in a module that returns its logits"
    return found[0], (note,)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
