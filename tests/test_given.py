"""Whatever is given to a public name: a right answer, or a sentence of ours, never an error from inside."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import foveal
from foveal.kernels import build
from foveal.program.quantise import find_scales
from samples import nano

IMAGE = torch.rand(1, 3, 64, 96)
GIVEN: dict[str, Any] = {
    "None": None,
    "number": 3,
    "text": "x",
    "list": [],
    "dict": {},
    "array": np.zeros((2, 2)),
    "meta": IMAGE.to("meta"),
    "sparse": IMAGE.to_sparse(),
    "object": object(),
}
MADE_BY_US = {"Prediction", "View"}
"""What methods return and policies are shown; nobody else makes them."""
PUBLIC = sorted(name for name in foveal.__all__ if callable(getattr(foveal, name)) and name not in MADE_BY_US)


def needed(function: Callable[..., Any]) -> int:
    """Count the arguments that must be given."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(p.default is p.empty and p.kind in kinds for p in parameters)


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised, in words, by this package."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return str(Path(foveal.__file__).parent) in last and len(str(error)) > 10


@pytest.mark.parametrize("kind", GIVEN)
@pytest.mark.parametrize("name", [name for name in PUBLIC if needed(getattr(foveal, name))])
def test_public_names_refuse_what_they_cannot_take(name: str, kind: str) -> None:
    if (name, kind) in {("street", "number"), ("import_library", "text")}:
        return
    function = getattr(foveal, name)
    with pytest.raises((ValueError, OSError)) as caught:
        function(*[GIVEN[kind]] * needed(function))
    assert is_ours(caught.value), caught.value


@pytest.mark.parametrize(
    "options", [{"tile": None}, {"max_level": "a"}, {"budget": None}, {"coarse_level": 0.5}]
)
def test_settings_of_policies(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*; give a"):
        foveal.create_policy("detail", **options)


def test_settings_of_runs() -> None:
    for budget in (None, "a", 0, 2):
        with pytest.raises(ValueError, match=r"budget is .*; it must be above 0"):
            foveal.CoarseToFineRun(budget=budget)  # type: ignore[arg-type]


@pytest.mark.skipif(not build.available(), reason="no compiler")
def test_programs() -> None:
    program = foveal.compile_network(nano())
    expected = program.run(IMAGE).labels
    assert np.array_equal(program.run(IMAGE.numpy()).labels, expected)
    for kind, given in {**GIVEN, "strings": ["a"], "bright": 255 * IMAGE, "dark": -30 * IMAGE}.items():
        with pytest.raises(ValueError, match="give"):
            program.run(given)
        if kind in ("bright", "dark"):
            with pytest.raises(ValueError, match=r"hold numbers from .* to .*divide 0\.\.255 by 255"):
                program.segment(given)
        else:
            with pytest.raises(ValueError, match="give"):
                find_scales(program, given if kind in ("None", "number", "list", "dict") else [given])
    for empty in (IMAGE[:0], IMAGE[..., :0]):
        with pytest.raises(ValueError, match="empty"):
            program.run(empty)
