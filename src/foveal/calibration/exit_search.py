"""Which exits to ask, and when an image may leave, for any budget: from labelled images.

Every image goes through all exits once; what each of them answers is kept as counts of true and predicted
classes, and as a confidence. From these and the times of the stages every choice of exits and threshold
follows without another run, so all of them are tried.

Source: the search of Kouris et al., "Multi-Exit Semantic Segmentation Networks", ECCV 2022: exhaustive, for
three ways to deploy a network; temperature and calibration error as in Guo et al., ICML 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from statistics import fmean

import torch
from torch import Tensor

from foveal.calibration.configure import check_parts
from foveal.calibration.engine import Engine
from foveal.calibration.exit_answers import ExitAnswers, Progress, ask_all, stage_times
from foveal.calibration.tuned import TunedRow, TunedSettings, found_before
from foveal.data.pairs import Dataset
from foveal.methods import Mess, MessConfig

BINS = 15
"""Parts of the confidences that the calibration error is taken over."""
TEMPERATURES = torch.logspace(-1, 1, 81, base=4.0).tolist()
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the pixels, the surest ones, that the error is said for."""
THRESHOLDS = 24
"""Confidences that are tried as a threshold, evenly among those that occur."""
MOST_ASKED = 3
"""Exits before the end that are asked at most."""


@dataclass(frozen=True)
class ExitRow:
    """An exit by itself; the last row is the end of the network.

    Attributes:
        exit: Its number, from 1.
        place: Module after which it is; empty for the end.
        work: Share of the dense work if it is the only one that is asked.
        ms: Time up to it [ms]; None if nothing was timed.
        miou: Mean IoU of its answers.
        temperature: What its logits are best divided by.
        calibration_error: Mean distance of confidence from accuracy.
        calibrated_error: The same with the temperature.
        risk: Error of the surest pixels, by their share.
    """

    exit: int
    place: str
    work: float
    ms: float | None
    miou: float
    temperature: float
    calibration_error: float
    calibrated_error: float
    risk: dict[str, float]


@dataclass(frozen=True)
class ModeRow:
    """The best way to leave the network for a budget, in a way of deploying it.

    Attributes:
        mode: "fixed": every image leaves at one exit; "input": a confident image leaves; "anytime": every
            exit answers until time is up.
        budget: Share of the dense work, in the mean.
        exits: Numbers of the exits that are asked.
        threshold: Confidence at which an image leaves; None if none is asked.
        work: Mean share that is spent.
        ms: Mean time [ms]; None if nothing was timed.
        miou: Mean IoU.
        left: Share of the images that leave before the end.
    """

    mode: str
    budget: float
    exits: str
    threshold: float | None
    work: float
    ms: float | None
    miou: float
    left: float


@dataclass(frozen=True)
class SearchResult:
    """What was found.

    Attributes:
        model: Name of the model.
        data: Name of the data set and split.
        images: Number of images.
        exits: Every exit by itself.
        rows: The best ways for every budget.
        settings: What is stored.
    """

    model: str
    data: str
    images: int
    exits: tuple[ExitRow, ...]
    rows: tuple[ModeRow, ...]
    settings: TunedSettings = field(repr=False)


def search_exits(
    engine: Engine,
    data: Dataset,
    budgets: Sequence[float],
    limit: int | None = None,
    timed: int = 3,
    progress: Progress = lambda name, done, total: None,
) -> SearchResult:
    """Find the exits to ask and the thresholds for some budgets.

    Args:
        engine: What runs the network, a model whose exits were trained.
        data: Labelled images, others than those that results are reported on.
        budgets: Shares of the dense work, in the mean over images.
        limit: Images, the first ones; all if absent.
        timed: Images that the stages are timed on; 0 for none.
        progress: Told how far it is.

    Raises:
        ValueError: The model has no exits, or no pixel is labelled.
    """
    check_parts(engine.model, "mess")
    method = Mess.from_config(engine.network, MessConfig(1.0), engine.model.resources).eval()
    seen = ask_all(method, data, min(len(data), limit or len(data)), progress)
    if not math.isfinite(seen.confusion([len(method.heads)] * len(seen.answers)).miou):
        raise ValueError(f"no pixel of {data.name} has a label; a search needs some")
    tried = _Search(method, seen, stage_times(method, data, timed) if timed else None)
    rows = [*tried.fixed(budgets), *tried.by_input(budgets), *tried.anytime()]
    exits = tuple(map(tried.alone, range(tried.end + 1)))
    stored = _settings(engine, data, seen, rows, exits[-1].miou)
    return SearchResult(engine.model.name, data.name, len(seen.answers), exits, tuple(rows), stored)


@dataclass(frozen=True)
class _Search:
    """What is known of a network with exits, and what every choice of exits and threshold reaches."""

    method: Mess
    seen: ExitAnswers
    times: list[tuple[float, float]] | None

    @property
    def end(self) -> int:
        """Number of the last stage."""
        return len(self.method.heads)

    def ms(self, asked: Sequence[int]) -> float | None:
        """Return the time up to the last of some exits, with the heads of all of them [ms]."""
        if self.times is None:
            return None
        return sum(stage for stage, _ in self.times[: asked[-1] + 1]) + sum(self.times[k][1] for k in asked)

    def alone(self, k: int) -> ExitRow:
        """Describe an exit by itself."""
        logits = torch.cat([x for x, _ in self.seen.sample[k]])
        labels = torch.cat([y for _, y in self.seen.sample[k]])
        losses = [float(torch.nn.functional.cross_entropy(logits / t, labels)) for t in TEMPERATURES]
        temperature = TEMPERATURES[losses.index(min(losses))]
        sure, right = logits.softmax(1).amax(1), logits.argmax(1) == labels
        divided, time = (logits / temperature).softmax(1).amax(1), self.ms([k])
        return ExitRow(
            exit=k + 1,
            place="" if k == self.end else self.method.stages.places[k].name,
            work=round(self.method.work_of([k]), 4),
            ms=None if time is None else round(time, 2),
            miou=round(self.seen.confusion([k] * len(self.seen.answers)).miou, 5),
            temperature=round(temperature, 3),
            calibration_error=round(calibration_error(sure, right), 5),
            calibrated_error=round(calibration_error(divided, right), 5),
            risk={f"{share:g}": round(risk_at(share, sure, right), 5) for share in COVERAGES},
        )

    def fixed(self, budgets: Sequence[float]) -> Iterator[ModeRow]:
        """Give the best single exit for every budget."""
        for budget in budgets:
            able = [k for k in range(self.end + 1) if self.method.work_of([k]) <= budget + 1e-9]
            rows = [self.row("fixed", budget, [k]) for k in able]
            if rows:
                yield max(rows, key=lambda row: (row.miou, -row.work))

    def by_input(self, budgets: Sequence[float]) -> Iterator[ModeRow]:
        """Give the best exits and threshold for every budget, among all."""
        tried = list[ModeRow]()
        for number in range(1, min(MOST_ASKED, self.end) + 1):
            for asked in combinations(range(self.end), number):
                values = sorted({round(image[k], 4) for image in self.seen.confidence for k in asked})
                chosen = [*values[:: max(1, len(values) // THRESHOLDS)], 0.9999]
                tried += [self.row("input", 1.0, [*asked, self.end], t) for t in chosen if 0 < t < 1]
        for budget in budgets:
            able = [row for row in tried if row.work <= budget]
            if able:
                yield replace(max(able, key=lambda row: (row.miou, -row.work)), budget=budget)

    def anytime(self) -> Iterator[ModeRow]:
        """Give every exit after the others."""
        for last in range(self.end + 1):
            asked = range(last + 1)
            row, time = self.row("anytime", 1.0, [last]), self.ms(asked)
            work = round(self.method.work_of(asked), 4)
            numbers = ",".join(str(k + 1) for k in asked if k < self.end)
            known = None if time is None else round(time, 2)
            yield replace(row, budget=work, work=work, exits=numbers, ms=known)

    def row(self, mode: str, budget: float, asked: Sequence[int], threshold: float | None = None) -> ModeRow:
        """Say what a choice reaches: an image leaves at the first exit that is sure, else at the last."""
        leaves = [
            next((k for k in asked[:-1] if threshold is not None and image[k] >= threshold), asked[-1])
            for image in self.seen.confidence
        ]
        paths = [[k for k in asked if k <= leave] for leave in leaves]
        times = [time for time in map(self.ms, paths) if time is not None]
        return ModeRow(
            mode=mode,
            budget=budget,
            exits=",".join(str(k + 1) for k in asked if k < self.end),
            threshold=threshold,
            work=round(fmean(self.method.work_of(path) for path in paths), 4),
            ms=round(fmean(times), 2) if times else None,
            miou=round(self.seen.confusion(leaves).miou, 5),
            left=round(fmean(leave < self.end for leave in leaves), 4),
        )


def risk_at(share: float, sure: Tensor, right: Tensor) -> float:
    """Return the error of the surest pixels.

    Args:
        share: How many of them, as a share of all.
        sure: Confidence of every pixel, 0..1.
        right: Whether its label is the true one, bool.
    """
    count = max(1, math.ceil(share * len(sure)))
    return float((~right[sure.argsort(descending=True, stable=True)[:count]]).double().mean())


def calibration_error(sure: Tensor, right: Tensor) -> float:
    """Return the expected calibration error: the mean distance of confidence from accuracy over equal bins.

    Args:
        sure: Confidence of every pixel, 0..1.
        right: Whether its label is the true one, bool.
    """
    bins = (sure * BINS).long().clamp(max=BINS - 1)
    sums = [torch.bincount(bins, x.double(), minlength=BINS) for x in (sure, right)]
    return float((sums[0] - sums[1]).abs().sum() / len(sure))


def _settings(
    engine: Engine, data: Dataset, seen: ExitAnswers, rows: Sequence[ModeRow], dense: float
) -> TunedSettings:
    """Keep the ways by input beside what else was tuned for these weights."""
    weights, others = engine.model.weights, found_before(engine.model, ("mess",))
    ours = {
        (row.exits, row.threshold): TunedRow(
            "mess",
            asdict(MessConfig(1.0, threshold=row.threshold, exits=row.exits)),
            engine.precision,
            row.work,
            row.ms,
            row.miou,
        )
        for row in rows
        if row.mode == "input"
    }
    kept = tuple(sorted((*others, *ours.values()), key=lambda row: row.work))
    return TunedSettings(weights, data.name, len(seen.answers), seen.size, round(dense, 5), kept)
