"""Scenes of the review: kinds of pictures on which methods behave differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from foveal.benchmark.memory import peak_mb
from foveal.calibration.engine import Engine
from foveal.data.dataset import Dataset, open_dataset
from foveal.data.static_camera import static_camera
from foveal.evaluation.baselines import static
from foveal.evaluation.evaluate import evaluate
from foveal.evaluation.tally import Entry
from foveal.evaluation.video import Clip, evaluate_video
from foveal.methods import CompiledFrames, CompiledMethod
from studies.review.cases import FINE, STREET, VIDEO, Case, Engines, budgets_of, entry_of, keys_of
from studies.review.memory import runner
from studies.review.rows import DENSE, OTHER, STATIC, ReviewRow, compared, in_order, row_of, whole_row
from studies.review.settings import Review
from studies.review.steadiness import steadiness
from studies.segblocks.images import spread
from studies.segblocks.scenes import write_scenes

Report = Callable[[str], None]
DRAWN, DRAWN_SIZE = 12, (360, 480)
"""Generated street images, where no others are given, and their height and width [px]."""
FRAMES = 24
"""Frames of a generated camera."""


@dataclass(frozen=True)
class Scene:
    """A kind of pictures.

    Attributes:
        title: Heading of its page.
        note: What is compared there.
        measure: Measures all rows.
        lacks: Says what images are missing; nothing if they are there.
    """

    title: str
    note: str
    measure: Callable[[Review, Report], list[ReviewRow]]
    lacks: Callable[[Review], str] = lambda review: ""


def _no_weeds(review: Review) -> str:
    folder = Path(review.weeds.partition(":")[2])
    return "" if folder.is_dir() else f"its images are not there, in {folder}"


def _street(review: Review, report: Report) -> list[ReviewRow]:
    return _images(review, _streets(review), STREET, "network", report)


def _weeds(review: Review, report: Report) -> list[ReviewRow]:
    return _images(review, open_dataset(review.weeds, "test"), FINE, "weeds_network", report)


def _streets(review: Review) -> Dataset:
    """Return the street images; some are drawn if none are given."""
    if review.street:
        return open_dataset(review.street, review.split)
    folder = review.out / "street"
    if not folder.is_dir():
        write_scenes(folder, {"test": DRAWN}, DRAWN_SIZE)
    return open_dataset(f"folder:{folder}", "test")


def _images(
    review: Review, data: Dataset, cases: Sequence[Case], network: str, report: Report
) -> list[ReviewRow]:
    """Measure cases on labelled images: all in turns, on the same images, beside whole ones."""
    engines, data = Engines(review), spread(data, review.limit or len(data))
    found = engines.find(network)
    image = data[0][0]
    size = image.shape[1], image.shape[2]
    asked: list[tuple[Case | None, Entry]] = [
        (None, replace(static(found.dense().dense(), scale**2), method=STATIC)) for scale in review.scales
    ]
    others = {case.network: engines.find(case.network) for case in cases if case.network != network}
    asked += [(None, _dense(engine, name)) for name, engine in others.items()]
    for case in cases:
        engine = engines.of(case)
        asked += [(case, entry_of(engine, case, budget)) for budget in budgets_of(case, review, engine, size)]
    entries = [entry for _, entry in asked]
    dense, *rest = evaluate(found.dense(), data, entries, review.timed, None, _counted(report, "images"))
    measured = list(zip(asked, rest, strict=True))
    own = {entry.policy: row for (_, entry), row in measured if entry.method == DENSE}
    apart = {each.network for each in cases if each.apart}
    rows = [whole_row(DENSE, "dense", dense, dense, _is_compiled(_dense(found)))]
    for (each, entry), row in measured:
        compiled = _is_compiled(entry)
        if each is not None:
            rows.append(row_of(each, row, own.get(each.network, dense), compiled))
        elif entry.method == STATIC:
            rows.append(whole_row(STATIC, "whole image shrunk", row, dense, compiled))
        elif entry.policy in apart:
            rows.append(whole_row(OTHER, f"{entry.policy}, dense", row, row, compiled))
    rows = compared(rows)
    return in_order(_looked_at(review, data, asked, rows, engines, report))


def _looked_at(
    review: Review,
    data: Dataset,
    asked: Sequence[tuple[Case | None, Entry]],
    rows: list[ReviewRow],
    engines: Engines,
    report: Report,
) -> list[ReviewRow]:
    """Fill in how steady answers are and what memory runs take, for one budget of every case."""
    every = max(1, len(data) // max(1, review.moved))
    images = [data[k][0] for k in range(0, len(data), every)][: review.moved]
    entries = {(case.title, entry.budget): (case, entry) for case, entry in asked if case is not None}
    middle = {case.title: _middle([e.budget for c, e in asked if c is case]) for case, _ in entries.values()}
    done = []
    for row in rows:
        if row.name == DENSE:
            report("views of the dense network")
            whole = _dense(engines.find(_network_of(asked)))
            done.append(replace(row, steady=round(steadiness(whole, images, review.offsets), 5)))
            continue
        known = entries.get((row.method, row.budget))
        if known is None or row.budget != middle[known[0].title] or known[1].policy == "oracle":
            done.append(row)
            continue
        case, entry = known
        report(f"views and memory of {case.title}")
        steady = round(steadiness(entry, images, review.offsets), 5)
        names = str(getattr(review, case.network)), str(getattr(review, case.small)) if case.small else ""
        peak = peak_mb(runner, *names, case.method, dict(case.settings), row.budget, images[0])
        done.append(replace(row, steady=steady, peak_mb=round(peak, 1)))
    return done


def _dense(engine: Engine, name: str = "") -> Entry:
    """Make what measures a network as it is."""
    return Entry(DENSE, name, 1.0, lambda target: engine.dense())


def _network_of(asked: Sequence[tuple[Case | None, Entry]]) -> str:
    return next(case.network for case, _ in asked if case is not None)


def _middle(budgets: Sequence[float]) -> float:
    return sorted(budgets)[len(budgets) // 2]


def _video(review: Review, report: Report) -> list[ReviewRow]:
    clip: Clip = (
        open_dataset(review.clip, review.clip_split)
        if review.clip
        else static_camera(_streets(review), FRAMES)
    )
    engines = Engines(review)
    engine = engines.find("network")
    asked: list[tuple[Case | None, Entry]] = []
    for case in VIDEO:
        asked += [(case, entry_of(engine, case, budget)) for budget in review.budgets]
    asked += [(None, keys_of(engine, budget)) for budget in review.budgets]
    timed = min(review.timed, 8)
    dense, *rest = evaluate_video(
        engine.dense(), clip, [entry for _, entry in asked], timed, review.frames, _counted(report, "frames")
    )
    rows = [whole_row(DENSE, "every frame dense", dense, dense, compiled=True)]
    for (each, entry), row in zip(asked, rest, strict=True):
        compiled = _is_compiled(entry)
        rows.append(
            row_of(each, row, dense, compiled)
            if each
            else whole_row("key_frames", entry.method, row, dense, compiled)
        )
    return in_order(rows)


def _is_compiled(entry: Entry) -> bool:
    """Whether a program runs what an entry measures, as far as can be seen from outside."""
    method: object = entry.make(torch.zeros(1, *DRAWN_SIZE, dtype=torch.uint8))
    while (
        not isinstance(method, CompiledMethod | CompiledFrames) and getattr(method, "compiled", None) is None
    ):
        inner = getattr(method, "method", None)
        if inner is None:
            return False
        method = inner
    return True


def _counted(report: Report, what: str) -> Callable[[int, int], None]:
    """Report every tenth of the way."""

    def tell(done: int, total: int) -> None:
        if done == total or done % max(1, total // 10) == 0:
            report(f"{done} of {total} {what}")

    return tell


SCENES: dict[str, Scene] = {
    "street": Scene(
        "Street scenes",
        "Labels nearly everywhere, most of them large: only the network itself sees what can be left out.",
        _street,
    ),
    "weeds": Scene(
        "Fine and sparse content",
        "Thin plants on soil: most of a picture is empty, and what counts vanishes when it is shrunk.",
        _weeds,
        _no_weeds,
    ),
    "video": Scene(
        "Video",
        "Successive frames: what did not change need not be computed again.",
        _video,
    ),
}
"""By name, as `foveal reproduce review --parts` knows them."""
