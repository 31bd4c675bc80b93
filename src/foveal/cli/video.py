"""`foveal video`: labels and a line about every frame."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.limits import Limits, Region, make_masked, make_paced
from foveal.cli.method_options import MethodCommand, given_settings
from foveal.cli.model_options import ModelOption, open_model
from foveal.cli.options import (
    BudgetOption,
    JsonOption,
    MaskShareOption,
    PrecisionOption,
    ThreadsOption,
    announce,
    prepare,
)
from foveal.cli.signals import Ended, finishing

if TYPE_CHECKING:
    from foveal.inference.video import FrameResult, MaskedFrames, Paced, Sink, Sound, Source
    from foveal.tiles.memory import Memory

    Frames = Paced | MaskedFrames

TIMED = 1000
"""Frames whose times are kept."""


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(cls=MethodCommand)(video)


def video(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="VIDEO|FOLDER|PATTERN", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Video to write (.mp4), or a folder for label maps.")
    ],
    model: ModelOption = "camvid_rn18",
    method: Annotated[
        str, typer.Option(help="Adaptive method; see `foveal methods`.")
    ] = "video_coarse_to_fine",
    budget: BudgetOption = None,
    long_run: Annotated[
        float | None,
        typer.Option(
            help="Mean share of the dense work over the frames: still moments save for busy ones. Then "
            "--budget is the most of a frame, 1 if absent."
        ),
    ] = None,
    latency: Annotated[
        float | None,
        typer.Option(help="Time that 95 of 100 frames may take [ms], kept by what the last ones took."),
    ] = None,
    live: Annotated[
        bool | None,
        typer.Option(
            help="Drop the oldest of the frames that wait; default for devices and live streams. A file is "
            "played at its own times."
        ),
    ] = None,
    view: Annotated[str, typer.Option(help="overlay: labels over the frames; labels: alone.")] = "overlay",
    fps: Annotated[
        float | None, typer.Option(min=0.001, max=1000, help="Frames a second of images; default 25.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Segment the first frames only.")] = None,
    memory: Annotated[
        Path | None,
        typer.Option(help="File of what is kept between frames: read if it is there, written at the end."),
    ] = None,
    mask: Annotated[
        str | None, typer.Option(help="Where to compute in every frame: an image, not 0 where wanted.")
    ] = None,
    mask_share: MaskShareOption = 0.0,
    precision: PrecisionOption = "f32",
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only errors and the output of --json.")
    ] = False,
) -> None:
    """Segment a video, computing only what changes.

    The first frame of a scene is computed in full, with --latency by a quarter, unless --first-budget says
    otherwise. With --json, every frame is one line. Ctrl-C and SIGTERM end the video there. A video that is
    there under this name is replaced at the end, and whole until then.
    """
    from foveal.calibration.engine import find_engine
    from foveal.inference.video import open_sink, open_source

    loaded, limits = open_model(ctx, model), Limits(budget, long_run, latency)
    engine = find_engine(loaded, precision)
    paced = make_paced(engine, method, limits, given_settings(ctx))
    made: Frames = paced
    if engine.warning and not quiet:
        announce(engine.warning)
    if mask is not None:
        region = Region(mask, mask_share)
        made = masked = make_masked(paced, engine, method, given_settings(ctx), region)
        if masked.setup.instead and not quiet:
            announce(masked.setup.instead)
    if memory is not None:
        _check_memory(method)
    rate = None if fps is None else Fraction(fps).limit_denominator(1001)
    with closing(_in_time(open_source(source, rate), live)) as frames:
        if Path(source).exists() and out.exists() and out.samefile(source):
            raise ValueError(f"-o {out} is the video itself; give another file")
        sink = open_sink(out, view, loaded.card.palette, frames.clock, _carried(frames, out, quiet))
        prepare(threads)
        report = StreamReport(json, quiet or json, limit or frames.count, latency)
        with finishing() as calm, closing(sink):
            try:
                last = _run(made, frames, sink, report, _before(memory), limit)
            finally:
                calm()
    if memory is not None:
        _keep(last, memory)
    if not quiet:
        say(report.summary(out), err=json)
    if report.interrupted:
        raise typer.Exit(report.interrupted)


@dataclass
class StreamReport:
    """What is said while frames go by, and at the end.

    Attributes:
        lines: Whether every frame is a line of JSON.
        hidden: Whether there is no progress bar.
        total: Frames that are expected.
        latency: Time that a frame may take [ms], if there is a limit.
        frames: Frames so far.
        dropped: Frames that were dropped.
        work: Sum of their work.
        times: Time of the last frames [ms].
        bytes: Largest memory between frames [B].
        interrupted: Exit code, as shells have it, if Ctrl-C or another signal ended the video; else 0.
    """

    lines: bool
    hidden: bool
    total: int | None
    latency: float | None = None
    frames: int = 0
    dropped: int = 0
    work: float = 0.0
    times: deque[float] = field(default_factory=lambda: deque(maxlen=TIMED))
    bytes: int = 0
    interrupted: int = 0

    def summary(self, out: Path) -> str:
        """Say what became of the video."""
        if not self.frames:
            return f"interrupted before the first frame; {out} was not written"
        ms, share = median(self.times), self.work / self.frames
        text = f"{self.frames} frames, work {share:.3f} of dense, {ms:.1f} ms a frame"
        if self.latency is not None:
            slow = sorted(self.times)[ceil(0.95 * len(self.times)) - 1]
            text += f", 95 % within {slow:.1f} ms (limit {self.latency:g})"
        if self.dropped:
            text += f", {self.dropped} frames dropped"
        memory = f", {self.bytes / 2**20:.1f} MiB between frames" if self.bytes else ""
        return f"{text}{memory}; {'interrupted, ' if self.interrupted else ''}wrote {out}"


def _run(
    method: Frames,
    frames: Source,
    sink: Sink,
    report: StreamReport,
    memory: Memory | None,
    limit: int | None,
) -> Memory | None:
    """Segment the frames, write each as soon as it is done, and return what the last one left."""
    import sys
    from itertools import islice

    from tqdm import tqdm

    from foveal.inference.video import segment_frames

    hidden = True if report.hidden else None  # None: shown in a terminal
    bar: Any = tqdm(total=report.total, unit="frame", file=sys.stderr, disable=hidden, leave=False)
    try:
        with closing(bar):
            for result in segment_frames(method, islice(frames, limit), memory, method.took):
                sink.write(result.frame, result.labels)
                memory = result.memory
                _count(result, frames, report)
                bar.set_postfix_str(f"work {result.work:.3f}", refresh=False)
                bar.update()
    except Ended as signal:
        report.interrupted = signal.code
    except ValueError as error:
        done = f"; the {report.frames} frames before are written" if report.frames else ""
        raise ValueError(f"{error}{done}") from None
    return memory


def _count(result: FrameResult, frames: Source, report: StreamReport) -> None:
    row = result.row(frames.clock)
    report.frames, report.work = report.frames + 1, report.work + result.work
    report.times.append(result.ms)
    report.dropped += row.dropped
    report.bytes = max(report.bytes, row.memory_bytes)
    if report.lines:
        echo_json(row, line=True)


def _in_time(source: Source, live: bool | None) -> Source:
    """Let frames be dropped where they do not wait, or where it is asked for."""
    from foveal.inference.video import Live, Played, is_live

    waits = not is_live(source.name)
    if not (live or (live is None and not waits)):
        return source
    return Live(Played(source) if waits else source)


def _carried(frames: Source, out: Path, quiet: bool) -> Sound | None:
    """Return the sound that goes into a video that is written; say so where it cannot."""
    sound = frames.sound if out.suffix and not out.is_dir() else None
    if sound is not None and sound.refusal:
        if not quiet:
            announce(f"{sound.refusal}; the video is written without sound")
        return None
    return sound


def _before(file: Path | None) -> Memory | None:
    """Read what an earlier part of the video left, if there is such a file."""
    from foveal.tiles.video import VideoMemory

    return VideoMemory.load(file) if file is not None and file.exists() else None


def _check_memory(method: str) -> None:
    """Check that a method keeps something between frames.

    Raises:
        ValueError: It does not.
    """
    from foveal.methods import METHODS

    if not METHODS[method].uses_memory:
        able = ", ".join(name for name, kind in METHODS.items() if kind.uses_memory)
        raise ValueError(f"--memory is written by --method {able}, given {method}")


def _keep(last: Memory | None, file: Path) -> None:
    """Write what the video left, if it had a frame."""
    from foveal.tiles.video import VideoMemory

    if isinstance(last, VideoMemory):
        last.save(file)
