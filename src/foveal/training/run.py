"""The folder of a run: one training at a time is in it, and it stays a run of the recipe it began with."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foveal.storage.atomic import write_atomically
from foveal.storage.lock import hold
from foveal.training.config import Recipe, RecipeError, stored_recipe
from foveal.training.distributed import World

CHECKPOINT, RECIPE, LOCK = "checkpoint.safetensors", "recipe.json", ".lock"
MAY_CHANGE = frozenset(
    f"train.{name}" for name in ("steps", "learning_rate", "warmup", "save_every", "evaluate", "device")
)
"""What may differ when a run goes on: its length, its speed (after divergence), its device, what it writes.
All else decides what the steps that were done have learned."""

_HELD: dict[Path, int] = {}
"""Folders that this process holds, and the thread that does."""


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Make the folder of a run, and have it alone while the context is open, or until the process ends.

    A folder that was made and in which nothing was written is gone at the end. The thread that has it may
    enter again. Of processes that train together, the first has it for all.

    Raises:
        ValueError: Another training is in it.
        OSError: It cannot be made.
    """
    place = run.resolve()
    if not World.current().first or _HELD.get(place) == threading.get_ident():
        yield
        return
    fresh = not run.exists()
    handle = _lock(run)
    _HELD[place] = threading.get_ident()
    try:
        yield
    finally:
        del _HELD[place]
        if fresh and {path.name for path in run.iterdir()} <= {LOCK}:
            (run / LOCK).unlink(missing_ok=True)
            run.rmdir()
        if handle is not None:
            os.close(handle)


def check_recipe(run: Path, recipe: Recipe) -> None:
    """Check that a run that is to go on began with the same recipe; see `MAY_CHANGE`.

    Raises:
        ValueError: It began with another one, or what it began with is not known.
    """
    path = run / RECIPE
    if not path.exists() and not (run / CHECKPOINT).exists():
        return
    try:
        began = _flat(stored_recipe(path).as_dict())
    except RecipeError as error:
        raise ValueError(f"{error}; without it nothing can be resumed: give another --run") from None
    given = _flat(recipe.as_dict())
    keys = (given.keys() | began.keys()) - MAY_CHANGE
    other = [key for key in keys if given.get(key) != began.get(key)]
    other.sort(key=lambda key: (key not in given or key not in began, key))
    if other:
        changes = "; ".join(f"{key} was {began.get(key)!r}, is {given.get(key)!r}" for key in other[:3])
        more = f"; {len(other) - 3} more" if len(other) > 3 else ""
        raise ValueError(
            f"{run} is a run of another recipe ({changes}{more}); give the recipe it began with, or another "
            "--run"
        )


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Write what a run is made with.

    Raises:
        OSError: It cannot be written; an older file is then as it was.
    """
    write_atomically(run / RECIPE, json.dumps(recipe.as_dict(), indent=1))


def _lock(run: Path) -> int | None:
    while True:
        run.mkdir(parents=True, exist_ok=True)
        try:
            return hold(run / LOCK, wait=False)
        except FileNotFoundError:  # its holder left nothing in the folder, and deleted it
            continue
        except BlockingIOError:
            raise ValueError(
                f"{run}: another training runs in this folder; wait for its end, or give another one"
            ) from None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
