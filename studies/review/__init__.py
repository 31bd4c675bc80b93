"""The review: every method of the package on the same images, with what each costs and where each fails."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from foveal.storage.names import find
from studies.review.page import done, write_index, write_scene
from studies.review.scenes import SCENES
from studies.review.settings import Review

if TYPE_CHECKING:
    from studies.segblocks import Outcome

__all__ = ["SCENES", "Review", "review"]


def review(
    asked: Review,
    outcome: Outcome,
    names: Iterable[str] | None = None,
    again: bool = False,
    report: Callable[[str], None] = lambda text: None,
    command: str = "",
) -> Outcome:
    """Measure the scenes of the review; one that fails does not stop the others.

    Args:
        asked: The settings.
        outcome: What has come so far; it is filled and returned.
        names: Scenes to measure; all whose images are there if absent.
        again: Whether scenes that are there already are measured again.
        report: Called with what is done next.
        command: What the user typed, for the records.

    Raises:
        ValueError: There is no scene of a name.
    """
    wanted = list(SCENES if names is None else names)
    for name in wanted:
        find(name, SCENES, "scene")
    absent = {name: why for name in wanted if names is None and (why := SCENES[name].lacks(asked))}
    for name, why in absent.items():
        report(f"{name} is left out: {why}")
    wanted = [name for name in wanted if name not in absent]
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in (name for name in SCENES if name in wanted):
        if done(asked.out, name) and not again:
            outcome.kept.append(name)
            report(f"{name} is there already; --again measures it again")
            continue
        report(name)
        start = time.monotonic()
        try:
            scene = SCENES[name]
            rows = scene.measure(asked, report)
            write_scene(asked, name, scene, rows, command, time.monotonic() - start)
        except Exception as error:  # whatever happens in one of them, the others are worth having
            if os.environ.get("FOVEAL_DEBUG"):
                raise
            outcome.failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            report(f"{name} failed: {outcome.failed[name]}")
            continue
        outcome.written.append(name)
        report(f"{name}: {time.monotonic() - start:.0f} s")
    outcome.index = Path(write_index(asked, SCENES, outcome.failed))
    return outcome
