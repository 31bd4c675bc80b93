"""Reproducing a paper: every table and figure is a part that measures, records and draws."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from foveal.storage.names import find
from studies.segblocks.parts import PARTS
from studies.segblocks.record import check_plots, done, write_index, write_part
from studies.segblocks.study import Study, Tools
from studies.segblocks.workshop import Workshop

__all__ = ["PARTS", "Outcome", "Study", "Tools", "choose_parts", "reproduce"]


@dataclass
class Outcome:
    """What a study has come to.

    Attributes:
        written: Parts that ran.
        kept: Parts that were there already.
        failed: Parts that failed, and why.
        index: The page with everything.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    index: Path | None = None


def choose_parts(names: Iterable[str] | None) -> list[str]:
    """Return the parts of these names in the order of the table; all if no names are given.

    Raises:
        ValueError: There is no part of a name.
    """
    wanted = list(PARTS if names is None else names)
    for name in wanted:
        find(name, PARTS, "part")
    if not wanted:
        raise ValueError(f"no part is named; available: {', '.join(PARTS)}")
    return [name for name in PARTS if name in wanted]


def reproduce(
    study: Study,
    tools: Tools,
    names: Iterable[str] | None = None,
    again: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Run the parts of a study; a part that fails does not stop the others.

    Args:
        study: The settings.
        tools: What the layers above lend.
        names: Parts to run; all if absent.
        again: Whether parts that are there already run again.
        report: Called with what is done next.

    Raises:
        ValueError: There is no part of a name, matplotlib is missing, or a given model or data set cannot be
            used.
    """
    wanted = choose_parts(names)
    check_plots()
    study.out.mkdir(parents=True, exist_ok=True)
    workshop, outcome = Workshop(study, tools, report), Outcome()
    workshop.check()
    for name in wanted:
        if done(study, name) and not again:
            outcome.kept.append(name)
            report(f"{name} is there already; --again runs it again")
        else:
            _run(workshop, name, outcome)
    outcome.index = write_index(study, PARTS, outcome.failed)
    return outcome


def _run(workshop: Workshop, name: str, outcome: Outcome) -> None:
    """Run a part and write it, or note why it failed."""
    workshop.report(name)
    start = time.monotonic()
    try:
        rows = PARTS[name].run(workshop)
        seconds = round(time.monotonic() - start, 1)
        head = {"command": workshop.tools.command, "seconds": seconds}
        write_part(workshop.study, name, PARTS[name], rows, head)
    except Exception as error:  # whatever happens in one part, the others are worth having
        if os.environ.get("FOVEAL_DEBUG"):
            raise
        outcome.failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        workshop.report(f"{name} failed: {outcome.failed[name]}")
        return
    outcome.written.append(name)
    workshop.report(f"{name}: {seconds:.0f} s")
