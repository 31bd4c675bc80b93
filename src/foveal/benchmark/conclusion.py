"""What `foveal frontier` found: its rows, and what the two curves say at equal quality and at equal time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foveal.benchmark.curves import Comparison, compare
from foveal.benchmark.frontier import FrontierRow, Measurement, curve
from foveal.benchmark.machine import Machine, describe_machine
from foveal.calibration.curves import Point
from foveal.methods.scaling import Size


@dataclass(frozen=True, kw_only=True)
class FrontierResult(Machine):
    """What `foveal frontier` found.

    Attributes:
        model: Name of the model.
        data: Name of the data set and split.
        images: Images that quality was measured on.
        timed: Images that were timed.
        repeat: Timed rounds over them.
        size: Height and width of the timed images [px].
        calibration: Images that int8 took its ranges from.
        rows: Static contenders, then adaptive ones.
        comparison: The two curves, quality in shares.
        at_equal_quality: A sentence about time.
        at_equal_time: A sentence about quality.
        left_out: Sentences about what could not be run.
    """

    model: str
    data: str
    images: int
    timed: int
    repeat: int
    size: Size
    calibration: int
    rows: tuple[FrontierRow, ...]
    comparison: Comparison
    at_equal_quality: str
    at_equal_time: str
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """What a frontier is of.

    Attributes:
        model: Name of the model.
        data: Name of the data set and split.
        calibration: Images that int8 took its ranges from.
        packages: That took part.
        left_out: Sentences about what was left out before anything was measured.
    """

    model: str
    data: str
    calibration: int
    packages: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()


def summarise(found: Measurement, subject: Subject) -> FrontierResult:
    """Add machine and command to a measurement, and compare its two curves."""
    comparison, at_equal_quality, at_equal_time = conclude(found.rows)
    return FrontierResult(
        **vars(describe_machine(subject.packages)),
        model=subject.model,
        data=subject.data,
        images=found.images,
        timed=found.timed,
        repeat=found.repeat,
        size=found.size,
        calibration=subject.calibration,
        rows=found.rows,
        comparison=comparison,
        at_equal_quality=at_equal_quality,
        at_equal_time=at_equal_time,
        left_out=(*subject.left_out, *found.left_out),
    )


def conclude(rows: Sequence[FrontierRow]) -> tuple[Comparison, str, str]:
    """Compare the two curves, and say at equal quality and at equal time which of them is ahead."""
    ours, static = curve(rows, "adaptive"), curve(rows, "static")
    found = compare(ours, static)
    if not ours or not static:
        missing = "no adaptive row" if static else "no static row"
        return found, f"Equal quality: {missing} to compare.", f"Equal time: {missing} to compare."
    return found, _about_time(found, ours, static), _about_quality(found)


def _about_time(found: Comparison, ours: Sequence[Point], static: Sequence[Point]) -> str:
    spread, best = found.speedup, (100 * ours[-1].quality, 100 * static[-1].quality)
    reach = f"the best adaptive row reaches {best[0]:.1f} mIoU, the best static row {best[1]:.1f}"
    if spread is None:
        return f"At equal quality: nothing to compare, for {reach}."
    ahead = "faster than" if spread.mean >= 1 else "slower than"
    factor = max(spread.mean, 1 / spread.mean)
    return (
        f"At equal quality ({100 * spread.low:.1f} to {100 * spread.high:.1f} mIoU) the adaptive network is "
        f"{factor:.2f}x {ahead} the fastest static one on average (speed-up {spread.least:.2f} to "
        f"{spread.most:.2f}); {reach}."
    )


def _about_quality(found: Comparison) -> str:
    spread = found.gain
    if spread is None:
        return "At equal time: nothing to compare."
    ahead = "above" if spread.mean >= 0 else "below"
    return (
        f"At equal time ({spread.low:.1f} to {spread.high:.1f} ms) the adaptive network is "
        f"{100 * abs(spread.mean):.1f} mIoU {ahead} the best static one on average "
        f"({100 * spread.least:+.1f} to {100 * spread.most:+.1f})."
    )
