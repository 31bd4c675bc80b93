"""Reproducing a paper: every table and figure is an experiment that is measured, stored and drawn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from foveal.storage.names import find
from studies.segblocks.experiments import EXPERIMENTS
from studies.segblocks.networks import Networks
from studies.segblocks.record import check_plots, done, write_experiment, write_index
from studies.segblocks.study import Study, Tools

__all__ = ["EXPERIMENTS", "Outcome", "Study", "Tools", "choose_experiments", "reproduce"]


@dataclass
class Outcome:
    """What a study has come to.

    Attributes:
        written: Experiments that ran.
        kept: Experiments that were there already.
        failed: Experiments that failed, and why.
        index: The page with everything.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    index: Path | None = None


def choose_experiments(names: Iterable[str] | None) -> list[str]:
    """Return the experiments of these names in the order of the table; all if no names are given.

    Raises:
        ValueError: There is no experiment of a name.
    """
    wanted = list(EXPERIMENTS if names is None else names)
    for name in wanted:
        find(name, EXPERIMENTS, "experiment")
    if not wanted:
        raise ValueError(f"no experiment is named; available: {', '.join(EXPERIMENTS)}")
    return [name for name in EXPERIMENTS if name in wanted]


def reproduce(
    study: Study,
    tools: Tools,
    names: Iterable[str] | None = None,
    again: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Run the experiments of a study; one that fails does not stop the others.

    Args:
        study: The settings.
        tools: What the layers above lend.
        names: Experiments to run; all if absent.
        again: Whether experiments that are there already run again.
        report: Called with what is done next.

    Raises:
        ValueError: There is no experiment of a name, matplotlib is missing, or a given model or data set
            cannot be used.
    """
    wanted = choose_experiments(names)
    check_plots()
    study.out.mkdir(parents=True, exist_ok=True)
    networks, outcome = Networks(study, tools, report), Outcome()
    networks.check()
    for name in wanted:
        if done(study, name) and not again:
            outcome.kept.append(name)
            report(f"{name} is there already; --again runs it again")
        else:
            _run(networks, name, outcome)
    outcome.index = write_index(study, EXPERIMENTS, outcome.failed)
    return outcome


def _run(networks: Networks, name: str, outcome: Outcome) -> None:
    """Run an experiment and write it, or note why it failed."""
    networks.report(name)
    start = time.monotonic()
    try:
        experiment = EXPERIMENTS[name]
        rows = experiment.run(networks)
        seconds = round(time.monotonic() - start, 1)
        head = {"command": networks.tools.command, "seconds": seconds}
        write_experiment(networks.study, name, experiment, rows, head)
    except Exception as error:  # whatever happens in one of them, the others are worth having
        if os.environ.get("FOVEAL_DEBUG"):
            raise
        outcome.failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        networks.report(f"{name} failed: {outcome.failed[name]}")
        return
    outcome.written.append(name)
    networks.report(f"{name}: {seconds:.0f} s")
