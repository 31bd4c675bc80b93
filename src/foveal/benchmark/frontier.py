"""Quality over milliseconds: adaptive methods beside every static runtime, precision and scale of the image.

End to end, from an image in memory to labels at its full size. Quality is one confusion matrix per row over
all images; time is taken on a few of them, all rows in turns in one process.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from foveal.benchmark.contenders import Contender, Kind, Labeller
from foveal.calibration.curves import Point, pareto
from foveal.cost import Timing, settle
from foveal.data.pairs import Dataset
from foveal.evaluation.metrics import Confusion
from foveal.methods.scaling import Size

SIZES = 4
"""Most sizes of images: every static runtime is compiled for each."""

Report = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FrontierRow:
    """One contender.

    Attributes:
        kind: static or adaptive.
        name: Runtime or method.
        precision: f32, bf16 or int8.
        setting: Scale of the image's sides if static, else budget.
        settings: What was chosen where something is left to choose.
        ms: Median from image to labels [ms].
        p95: 95th percentile [ms].
        miou: Mean IoU over the classes that occur.
        pixel_accuracy: Share of the labelled pixels that are right.
        agreement: Share of the pixels with the label of the dense network in f32: at the same scale if
            static, else on the whole image. None if no f32 row of that scale took part.
        on_curve: Whether no row of its kind is faster and better.
        scale: Share of the image's sides that is seen at all.
    """

    kind: Kind
    name: str
    precision: str
    setting: float
    settings: str
    ms: float
    p95: float
    miou: float
    pixel_accuracy: float
    agreement: float | None
    on_curve: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        limit: Images for quality, the first ones; all if absent.
        timed: Images that are timed.
        repeat: Timed rounds over them.
        quiet: Makes the machine quiet while times are taken.
    """

    limit: int | None = None
    timed: int = 4
    repeat: int = 5
    quiet: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Measurement:
    """Rows of a frontier, and what was measured for them."""

    rows: tuple[FrontierRow, ...]
    images: int
    timed: int
    repeat: int
    size: Size
    left_out: tuple[str, ...]


@dataclass
class _Entry:
    """A contender while it is measured."""

    contender: Contender
    labellers: dict[Size, Labeller]
    confusion: Confusion
    same: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def reference(self) -> float:
        """Scale of the dense answer that it is compared with."""
        return self.contender.setting if self.contender.kind == "static" else 1.0


def measure_frontier(
    contenders: Sequence[Contender],
    data: Dataset,
    effort: Effort,
    report: Report = lambda text: None,
    progress: Progress = lambda done, total: None,
) -> Measurement:
    """Measure quality and time of every contender.

    Args:
        contenders: Rows.
        data: Labelled images.
        effort: How much is measured.
        report: Called with what is done next.
        progress: Called with the images done and their total.

    Raises:
        ValueError: The images have more than `SIZES` sizes, or no contender can run.
    """
    count = min(len(data), effort.limit or len(data))
    sizes = Counter(_size_of(data[k][0]) for k in range(count))
    if len(sizes) > SIZES:
        raise ValueError(
            f"the images have {len(sizes)} sizes, and static runtimes are compiled for each; at most {SIZES} "
            "are allowed: crop the images to one size, or give --limit"
        )
    entries, left_out = _prepare(contenders, list(sizes), len(data.classes), report)
    report(f"quality of {len(entries)} rows on {count} images")
    _measure_quality(entries, data, count, progress)
    size = sizes.most_common(1)[0][0]
    indices = [k for k in range(count) if _size_of(data[k][0]) == size]
    chosen = [indices[k * len(indices) // effort.timed] for k in range(min(effort.timed, len(indices)))]
    report(f"time of {len(entries)} rows in turns on {len(chosen)} images, {effort.repeat} rounds")
    with effort.quiet():
        _measure_time(entries, [data[k][0][None] for k in chosen], effort.repeat)
    rows = _mark_curves([_row(entry, size) for entry in entries])
    return Measurement(tuple(rows), count, len(chosen), effort.repeat, size, tuple(left_out))


def _size_of(image: Tensor) -> Size:
    return image.shape[-2], image.shape[-1]


def _prepare(
    contenders: Sequence[Contender], sizes: Sequence[Size], classes: int, report: Report
) -> tuple[list[_Entry], list[str]]:
    """Prepare every contender for every size; say which cannot run."""
    entries, left_out = [], []
    for contender in contenders:
        word = "scale" if contender.kind == "static" else "budget"
        text = f"{contender.name} in {contender.precision} at {word} {contender.setting:g}"
        report(f"prepare {text}")
        try:
            labellers = {size: contender.prepare(size) for size in sizes}
        except ValueError as error:
            left_out.append(f"{text} is left out: {error}")
            continue
        entries.append(_Entry(contender, labellers, Confusion(classes)))
    if not entries:
        raise ValueError(f"no row can be run; the first: {left_out[0] if left_out else 'none was asked for'}")
    return entries, left_out


def _measure_quality(entries: Sequence[_Entry], data: Dataset, count: int, progress: Progress) -> None:
    """Count the labels of every contender on the same images, the dense network in f32 first."""
    ordered = sorted(entries, key=lambda e: (e.contender.kind != "static", e.contender.precision != "f32"))
    for index in range(count):
        image, target = data[index]
        dense: dict[float, Tensor] = {}
        for entry in ordered:
            labeller = entry.labellers[_size_of(image)]
            labels = labeller.run(labeller.lay(image[None]))
            if entry.contender.kind == "static" and entry.contender.precision == "f32":
                dense.setdefault(entry.contender.setting, labels.clone())
            entry.confusion.add(labels, target[None])
            if entry.reference in dense:
                entry.same.append(float((labels == dense[entry.reference]).double().mean()))
        progress(index + 1, count)


def _measure_time(entries: Sequence[_Entry], images: Sequence[Tensor], repeat: int) -> None:
    """Time all contenders in turns, round by round and image by image; a first round does not count."""
    for turn in range(1 + repeat):
        for image in images if turn else images[:1]:
            laid: dict[torch.memory_format, Tensor] = {}
            for entry in entries:
                labeller = entry.labellers[_size_of(image)]
                if labeller.layout not in laid:
                    laid[labeller.layout] = labeller.lay(image)
                ready = laid[labeller.layout]
                settle()
                start = time.perf_counter()
                labeller.run(ready)
                if turn:
                    entry.times.append(1000 * (time.perf_counter() - start))


def _row(entry: _Entry, size: Size) -> FrontierRow:
    contender, timing = entry.contender, Timing(tuple(entry.times))
    return FrontierRow(
        kind=contender.kind,
        name=contender.name,
        precision=contender.precision,
        setting=contender.setting,
        settings=entry.labellers[size].settings,
        ms=round(timing.median, 3),
        p95=round(timing.p95, 3),
        miou=round(entry.confusion.miou, 5),
        pixel_accuracy=round(entry.confusion.accuracy, 5),
        agreement=round(statistics.fmean(entry.same), 5) if entry.same else None,
        scale=contender.scale,
    )


def curve(rows: Sequence[FrontierRow], kind: Kind) -> list[Point]:
    """Return the points of a kind that no other of it is faster and better than."""
    return pareto(Point(row.ms, row.miou) for row in rows if row.kind == kind)


def _mark_curves(rows: Sequence[FrontierRow]) -> list[FrontierRow]:
    points = {kind: set(curve(rows, kind)) for kind in ("static", "adaptive")}
    return [replace(row, on_curve=Point(row.ms, row.miou) in points[row.kind]) for row in rows]
