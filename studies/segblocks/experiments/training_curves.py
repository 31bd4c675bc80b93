"""How the loss falls over training steps, dense and jointly with a policy.

Source: Fig. 11 of SegBlocks (Verelst and Tuytelaars, TPAMI 2022).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from studies.segblocks.experiment import Experiment
from studies.segblocks.networks import Networks
from studies.segblocks.paper import TRAINING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TERMS = "segmentation", "mixed"
"""Terms of a log that are the loss of what is used in the end; the first that is there is taken."""
LAST = 5
"""Rows whose mean is the loss at the end of a curve."""


@dataclass(frozen=True)
class CurveRow:
    """A stretch of steps of a run.

    Attributes:
        run: Name of the run.
        step: Last of the stretch, from 1.
        loss: Mean over the stretch.
        seconds: Time up to there [s]; None if it is not known.
    """

    run: str
    step: int
    loss: float
    seconds: float | None


@dataclass(frozen=True)
class EndRow:
    """Where a curve ends, and when it first was where the worst of all curves ends."""

    run: str
    steps: int
    loss_at_the_end: float
    worst_loss_at_an_end: float
    steps_to_that_loss: int | None


def run(networks: Networks) -> list[CurveRow]:
    """Read how the loss fell in the given runs, or train a network in both ways from nothing."""
    return read_curves(_runs(networks))


def read_curves(
    runs: Mapping[str, Path], points: int = 100, ms: Mapping[str, float] | None = None
) -> list[CurveRow]:
    """Read how the loss of runs fell: means over equal stretches of steps.

    Args:
        runs: Folder with a `log.jsonl` by the name of the run.
        points: Most rows a run.
        ms: Time of a step by the name of the run [ms], if it is known.

    Raises:
        ValueError: A run has no log, or none of its terms is known.
    """
    rows = []
    for name, folder in runs.items():
        losses = list(_losses(folder / "log.jsonl"))
        stretch = -(-len(losses) // points) or 1
        for first in range(0, len(losses), stretch):
            part = losses[first : first + stretch]
            step = part[-1][0] + 1
            seconds = round(step * ms[name] / 1000, 3) if ms and name in ms else None
            rows.append(CurveRow(name, step, round(fmean(value for _, value in part), 5), seconds))
    return rows


def steps_needed(rows: list[CurveRow], loss: float) -> dict[str, int | None]:
    """Say after how many steps the curve of every run reaches a loss; None if it never does."""
    needed: dict[str, int | None] = {row.run: None for row in rows}
    for row in rows:
        if needed[row.run] is None and row.loss <= loss:
            needed[row.run] = row.step
    return needed


def summary(rows: list[CurveRow]) -> list[EndRow]:
    """Say where every curve ends, and when it first was where the worst of them ends."""
    curves: dict[str, list[CurveRow]] = {}
    for row in rows:
        curves.setdefault(row.run, []).append(row)
    ends = {name: fmean(row.loss for row in curve[-LAST:]) for name, curve in curves.items()}
    worst = max(ends.values())
    needed = steps_needed(rows, worst)
    return [
        EndRow(name, max(row.step for row in curve), round(ends[name], 4), round(worst, 3), needed[name])
        for name, curve in curves.items()
    ]


def draw(rows: list[CurveRow], axes: Axes, over: Literal["step", "seconds"] = "step") -> None:
    """Draw the loss over steps, or over time with `over="seconds"`."""
    for name in dict.fromkeys(row.run for row in rows):
        mine = [row for row in rows if row.run == name]
        found = [(row.step if over == "step" else row.seconds, row.loss) for row in mine]
        points = [(place, loss) for place, loss in found if place is not None]
        if points:
            axes.plot([place for place, _ in points], [loss for _, loss in points], label=name)
    axes.set_xlabel("training step" if over == "step" else "time in training steps [s]")
    axes.set_ylabel("loss")
    axes.legend()


def _losses(log: Path) -> Iterator[tuple[int, float]]:
    if not log.is_file():
        raise ValueError(f"{log} does not exist; give the folder of a run, as `foveal train` writes it")
    for line in log.read_text().splitlines():
        values = json.loads(line)
        found = [values[term] for term in TERMS if term in values]
        if not found:
            raise ValueError(f"{log} has the terms {', '.join(values)}; one of {', '.join(TERMS)} is needed")
        yield int(values["step"]), float(found[0])


def _runs(networks: Networks) -> dict[str, Path]:
    """Find the logs of the given models; train a dense network and SegBlocks alike if either has none."""
    study = networks.study
    dense, ours = dict(_logged(study.models)), dict(_logged(study.segblocks))
    if dense and ours:
        return dense | ours
    found = {"dense": networks.from_nothing(None)}
    return found | {
        f"segblocks, target {target:g}": networks.from_nothing(target) for target in study.targets
    }


def _logged(names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name in names:
        folder = Path(name) if Path(name).is_dir() else Path(name).parent
        if (folder / "log.jsonl").is_file():
            yield folder.name, folder


EXPERIMENT = Experiment(
    "Loss over training steps (figure 11)",
    "Given runs if they have logs; else a small network is trained from nothing, dense and jointly with "
    "a policy, on the same batches.",
    run,
    (draw,),
    TRAINING,
    summary,
)
