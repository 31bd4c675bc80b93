"""Find the best settings of a network for any budget and time, by executed runs on labelled images.

Successive halving: all candidates on few images; those nearest to an upper hull of quality over work or over
time go on to twice as many; the last rung uses all. Whole images at every scale are never dropped: what they
reach says whether anything else pays.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from math import isfinite
from statistics import fmean

import torch
from torch import Tensor

from foveal.calibration.candidates import DENSE, VARIED, Candidate, Space, list_candidates
from foveal.calibration.curves import Point, pareto
from foveal.calibration.engine import Engine
from foveal.calibration.halving import image_order, rungs, survivors
from foveal.calibration.latency import on_tiles
from foveal.calibration.tuned import TunedRow, TunedSettings, found_before
from foveal.cost import alternate, settle
from foveal.data.pairs import Dataset
from foveal.methods import AdaptiveSegmenter
from foveal.methods.scaling import Size
from foveal.objectives.confusion import Confusion
from foveal.ops import tuning

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Told what is done, how far it is, and the total."""


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        limit: Images, the first ones of the data set; all if absent.
        first: Images of the first rung.
        timed: Images that the survivors are timed on; 0 takes no times, and only work counts.
        repeat: Timed rounds over them.
        seed: Of the order in which images are taken.
    """

    limit: int | None = None
    first: int = 3
    timed: int = 3
    repeat: int = 5
    seed: int = 0


@dataclass(frozen=True)
class TuneRow:
    """A candidate, and what it reached.

    Attributes:
        method: Name of the method.
        title: Method and settings in words.
        precision: What its program computed in.
        scale: Share of the image's sides.
        budget: Share of the dense work that was asked for.
        work: Mean share that was spent.
        ms: Median time of an image [ms]; None if it was not timed at the end.
        miou: Mean IoU over the classes that occur, on its images.
        images: Images that it was tried on, before it was dropped.
        best_for: What none is better at: "work", "time", both or nothing.
    """

    method: str
    title: str
    precision: str
    scale: float
    budget: float
    work: float
    ms: float | None
    miou: float
    images: int
    best_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class TuneResult:
    """What was found.

    Attributes:
        model: Name of the model.
        data: Name of the data set and split.
        images: Images of the last rung.
        size: Height and width of most of them [px].
        rungs: Images and candidates of every rung.
        rows: Candidates, the last to survive first, by work.
        settings: What is stored.
        left_out: Sentences about what could not be run.
    """

    model: str
    data: str
    images: int
    size: Size
    rungs: tuple[tuple[int, int], ...]
    rows: tuple[TuneRow, ...]
    settings: TunedSettings = field(repr=False)
    left_out: tuple[str, ...] = ()

    @property
    def finalists(self) -> list[TuneRow]:
        """Rows that were tried on all images, by work."""
        return [row for row in self.rows if row.images == self.images]


@dataclass
class _Entry:
    """A candidate while it is measured."""

    candidate: Candidate
    method: AdaptiveSegmenter
    confusion: Confusion
    works: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    ms: float | None = None

    @property
    def work(self) -> float:
        return fmean(self.works)

    def row(self, best_for: tuple[str, ...] = ()) -> TuneRow:
        """Return what it reached."""
        of, config = self.candidate, self.candidate.config
        return TuneRow(
            method=of.method,
            title=of.title,
            precision=of.precision,
            scale=config.scale,
            budget=config.budget,
            work=round(self.work, 4),
            ms=None if self.ms is None else round(self.ms, 2),
            miou=round(self.confusion.miou, 5),
            images=len(self.works),
            best_for=best_for,
        )


def tune(
    engines: Mapping[str, Engine],
    data: Dataset,
    space: Space,
    effort: Effort,
    say: Say = lambda text: None,
    progress: Progress = lambda name, done, total: None,
) -> TuneResult:
    """Find the best settings for any work and time.

    Args:
        engines: What runs the network, by precision.
        data: Labelled images, others than those that results are reported on.
        space: What is tried.
        effort: How much is measured.
        say: Told what is done next.
        progress: Told how far it is.

    Raises:
        ValueError: There are no images, none of them is labelled, or the dense network cannot run on one.
    """
    count = min(len(data), effort.limit or len(data))
    if not count:
        raise ValueError(f"{data.name} has no labelled images; tune needs some, adapt does without")
    order = image_order(count, effort.seed)
    shapes = Counter((image.shape[1], image.shape[2]) for image in (data[k][0] for k in order))
    engine = next(iter(engines.values()))
    race = _Race(engine.model.name, data, order, effort, progress)
    race.enter(engines, list_candidates(engines.values(), list(shapes), space), len(data.classes))
    history = race.run(say)
    if effort.timed:
        race.time(say)
    size = shapes.most_common(1)[0][0]
    return race.result(engine, size, history)


@dataclass
class _Race:
    """Candidates on ever more images."""

    name: str
    data: Dataset
    order: Sequence[int]
    effort: Effort
    progress: Progress
    entries: list[_Entry] = field(default_factory=list)
    dropped: list[_Entry] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def enter(self, engines: Mapping[str, Engine], candidates: Sequence[Candidate], classes: int) -> None:
        """Make the method of every candidate."""
        for each in candidates:
            engine = engines[each.precision]
            made = engine.make(each.method, each.config, engine.model.resources)
            self.entries.append(_Entry(each, made, Confusion(classes)))

    def run(self, say: Say) -> list[tuple[int, int]]:
        """Go through the rungs; return images and candidates of each."""
        done, history = 0, []
        for images in rungs(len(self.order), self.effort.first):
            say(f"{len(self.entries)} settings on {images} images")
            for number in range(done, images):
                self._label(number)
                self.progress(f"{len(self.entries)} settings", number + 1 - done, images - done)
            history.append((images, len(self.entries)))
            done = images
            if images < len(self.order):
                self._halve()
        return history

    def _label(self, number: int) -> None:
        """Run everyone on an image, in turns."""
        image, target = self.data[self.order[number]]
        batch = image[None].to(memory_format=torch.channels_last)
        for entry in list(self.entries):
            try:
                if number == 0 and self.effort.timed:
                    with tuning(), on_tiles(self.name):
                        _labels(entry.method, batch)
                settle()
                start = time.perf_counter()
                with on_tiles(self.name):
                    labels, work = _labels(entry.method, batch)
            except ValueError as error:  # a budget that does not pay for this image
                if entry.candidate.shrinks_alone:
                    raise
                self.entries.remove(entry)
                self.left_out.append(f"{entry.candidate.title} is left out: {error}")
                continue
            entry.times.append(1000 * (time.perf_counter() - start))
            entry.works.append(work)
            entry.confusion.add(labels.cpu(), target[None])

    def _halve(self) -> None:
        costs = [[entry.work for entry in self.entries]]
        if self.effort.timed:
            costs.append([min(entry.times) for entry in self.entries])
        qualities = [entry.confusion.miou for entry in self.entries]
        kept = [entry.candidate.shrinks_alone for entry in self.entries]
        going = set(survivors(costs, qualities, kept))
        self.dropped += [entry for k, entry in enumerate(self.entries) if k not in going]
        self.entries = [entry for k, entry in enumerate(self.entries) if k in going]

    def time(self, say: Say) -> None:
        """Time the survivors in turns."""
        chosen = self.order[: self.effort.timed]
        say(f"time of {len(self.entries)} settings in turns on {len(chosen)} images")
        found: dict[str, list[float]] = {str(k): [] for k in range(len(self.entries))}
        for index in chosen:
            batch = self.data[index][0][None].to(memory_format=torch.channels_last)
            turns: dict[str, Callable[[], object]] = {
                str(k): partial(_labels, entry.method, batch) for k, entry in enumerate(self.entries)
            }
            for name, timing in alternate(turns, self.effort.repeat, warmup=1).items():
                found[name].append(timing.median)
        for k, entry in enumerate(self.entries):
            entry.ms = fmean(found[str(k)])

    def result(self, engine: Engine, size: Size, history: Sequence[tuple[int, int]]) -> TuneResult:
        """Say what nobody is better than, at its work and at its time."""
        rows = [entry.row() for entry in self.entries]
        best = {"work": _front(rows, [row.work for row in rows])}
        if self.effort.timed:
            best["time"] = _front(rows, [row.ms or 0.0 for row in rows])
        marks = [tuple(name for name, chosen in best.items() if k in chosen) for k in range(len(rows))]
        final = sorted(
            (entry.row(mark) for entry, mark in zip(self.entries, marks, strict=True)), key=lambda r: r.work
        )
        earlier = sorted((entry.row() for entry in self.dropped), key=lambda r: (-r.images, r.work))
        kept = [_tuned(entry) for entry, mark in zip(self.entries, marks, strict=True) if mark]
        kept += found_before(engine.model, (DENSE, *VARIED))  # what another search found stays
        if not all(isfinite(entry.confusion.miou) for entry in self.entries):
            raise ValueError(f"no pixel of {self.data.name} has a label; tune needs some, adapt does without")
        whole = next(e for e in self.entries if e.candidate.shrinks_alone and e.candidate.config.scale == 1)
        settings = TunedSettings(
            engine.model.weights,
            self.data.name,
            len(self.order),
            size,
            round(whole.confusion.miou, 5),
            tuple(sorted(kept, key=lambda row: row.work)),
        )
        data, images, found = self.data.name, len(self.order), (*final, *earlier)
        return TuneResult(
            self.name, data, images, size, tuple(history), found, settings, tuple(self.left_out)
        )


@torch.inference_mode()
def _labels(method: AdaptiveSegmenter, batch: Tensor) -> tuple[Tensor, float]:
    """Segment an image [1, C, H, W]; return its labels and its work."""
    found = method(batch)
    return found.labels, float(found.trace.work[0])


def _front(rows: Sequence[TuneRow], costs: Sequence[float]) -> set[int]:
    """Return who is on the curve that nobody is cheaper and better than; the first of equals."""
    points = [Point(cost, row.miou) for cost, row in zip(costs, rows, strict=True)]
    return {points.index(point) for point in pareto(points)}


def _tuned(entry: _Entry) -> TunedRow:
    of, row = entry.candidate, entry.row()
    values = asdict(of.config)
    return TunedRow(of.method, values, of.precision, row.work, row.ms, row.miou)
