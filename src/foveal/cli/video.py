"""`foveal video`: labels and a line about every frame; and what `foveal evaluate --video` measures."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.method_options import MethodCommand, Settings, given_settings
from foveal.cli.model_options import ModelOption, open_model
from foveal.cli.options import BudgetOption, JsonOption, ThreadsOption, announce, counter, prepare

if TYPE_CHECKING:
    from foveal.calibration.engine import Engine
    from foveal.data.pairs import Dataset
    from foveal.evaluation.tally import Entry
    from foveal.hub.checkpoint import Model
    from foveal.inference.video import FrameResult, Sink, Source
    from foveal.methods import AdaptiveSegmenter
    from foveal.tiles.memory import Memory

VIDEOS = ("clip", "static")
FRAMES = 60
"""Frames of a video that is made of photos."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
TIMED = 1000
"""Frames whose times are kept."""
FIRST = 1.0
"""Budget of a first frame: everything is seen once, and later frames pay only for what changes."""


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
    view: Annotated[str, typer.Option(help="overlay: labels over the frames; labels: alone.")] = "overlay",
    fps: Annotated[
        float | None, typer.Option(min=0.001, max=1000, help="Frames a second of images; default 25.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Segment the first frames only.")] = None,
    memory: Annotated[
        Path | None,
        typer.Option(help="File of what is kept between frames: read if it is there, written at the end."),
    ] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only errors and the output of --json.")
    ] = False,
) -> None:
    """Segment a video, computing only what changes.

    The first frame of a scene is computed in full, unless --first-budget says otherwise. With --json, every
    frame is one line. Ctrl-C ends the video there; what was written can be played.
    """
    from foveal.inference.video import open_sink, open_source

    loaded = open_model(ctx, model)
    made = make_method(loaded, method, budget, given_settings(ctx), silent=quiet)
    if memory is not None:
        _check_memory(method)
    rate = None if fps is None else Fraction(fps).limit_denominator(1001)
    with closing(open_source(source, rate)) as frames:
        if Path(source).exists() and out.exists() and out.samefile(source):
            raise ValueError(f"-o {out} is the video itself; give another file")
        sink = open_sink(out, view, loaded.card.palette, frames.clock)
        prepare(threads)
        report = StreamReport(json, quiet or json, limit or frames.count)
        with closing(sink):
            last = _run(made, frames, sink, report, _before(memory), limit)
    if memory is not None:
        _keep(last, memory)
    if not quiet:
        say(report.summary(out), err=json)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)


def make_method(
    loaded: Model, method: str, budget: float | None, settings: Settings, silent: bool = False
) -> AdaptiveSegmenter:
    """Make what segments frames; first frames get everything, where the method can be told.

    Raises:
        ValueError: There is no such method or setting, or the network takes other images than colour.
    """
    from foveal.calibration.configure import configure
    from foveal.calibration.engine import find_engine
    from foveal.methods import METHODS, MethodConfig, Resources
    from foveal.methods.config import settings_of
    from foveal.storage.names import find

    channels = getattr(loaded.network, "in_channels", 3)
    if channels != 3:
        raise ValueError(f"{loaded.name} takes images of {channels} channels and videos have 3")
    known = settings_of(find(method, METHODS, "method").Config)
    if "first_budget" in known:
        settings = {"first_budget": FIRST, **settings}
    share = MethodConfig.budget if budget is None else budget
    engine = find_engine(loaded)
    if engine.warning and not silent:
        announce(engine.warning)
    return engine.make(method, configure(loaded, method, share, settings), Resources(loaded.policy))


@dataclass
class StreamReport:
    """What is said while frames go by, and at the end.

    Attributes:
        lines: Whether every frame is a line of JSON.
        hidden: Whether there is no progress bar.
        total: Frames that are expected.
        frames: Frames so far.
        work: Sum of their work.
        times: Time of the last frames [ms].
        bytes: Largest memory between frames [B].
        interrupted: Whether Ctrl-C ended the video.
    """

    lines: bool
    hidden: bool
    total: int | None
    frames: int = 0
    work: float = 0.0
    times: deque[float] = field(default_factory=lambda: deque(maxlen=TIMED))
    bytes: int = 0
    interrupted: bool = False

    def summary(self, out: Path) -> str:
        """Say what became of the video."""
        if not self.frames:
            return f"interrupted before the first frame; {out} was not written"
        ms, share = median(self.times), self.work / self.frames
        text = f"{self.frames} frames, work {share:.3f} of dense, {ms:.1f} ms a frame"
        memory = f", {self.bytes / 2**20:.1f} MiB between frames" if self.bytes else ""
        return f"{text}{memory}; {'interrupted, ' * self.interrupted}wrote {out}"


def _run(
    method: AdaptiveSegmenter,
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
            for result in segment_frames(method, islice(frames, limit), memory):
                sink.write(result.frame, result.labels)
                memory = result.memory
                _count(result, frames, report)
                bar.set_postfix_str(f"work {result.work:.3f}", refresh=False)
                bar.update()
    except KeyboardInterrupt:
        report.interrupted = True
    except ValueError as error:
        done = f"; the {report.frames} frames before are written" if report.frames else ""
        raise ValueError(f"{error}{done}") from None
    return memory


def _count(result: FrameResult, frames: Source, report: StreamReport) -> None:
    row = result.row(frames.clock)
    report.frames, report.work = report.frames + 1, report.work + result.work
    report.times.append(result.ms)
    report.bytes = max(report.bytes, row.memory_bytes)
    if report.lines:
        echo_json(row, line=True)


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


@dataclass(frozen=True)
class Frames:
    """What is measured over frames.

    Attributes:
        video: "clip", the images are the frames; or "static", a still camera is made of them.
        controls: Budgets that get rows of controls.
        timed: Frames that are timed.
        limit: Frames at most.
        json: Whether rows are written as JSON.
    """

    video: str
    controls: list[float]
    timed: int
    limit: int | None
    json: bool

    def checked(self, others: Mapping[str, object], threads: int | None) -> Frames:
        """Return it if nothing is given that is for single images; and set the number of threads.

        Raises:
            ValueError: There is no such kind of video, or something is.
        """
        if self.video not in VIDEOS:
            raise ValueError(f"--video is '{self.video}'; give {' or '.join(VIDEOS)}")
        wrong = [name for name, value in others.items() if value]
        if wrong:
            raise ValueError(f"{' and '.join(wrong)} is for single images; leave it out with --video")
        prepare(threads)
        return self


def measure_frames(loaded: Model, engine: Engine, data: Dataset, entries: list[Entry], how: Frames) -> None:
    """Measure rows over the frames of a video, and write them."""
    from foveal.data.static_camera import static_camera
    from foveal.evaluation.video import Clip, evaluate_video
    from foveal.reporting.evaluation_text import video_table

    clip: Clip = data if how.video == "clip" else static_camera(data, how.limit or FRAMES)
    asked = [*entries, *_controls(loaded, engine, how.controls)]
    rows = evaluate_video(engine.dense(), clip, asked, how.timed, how.limit, counter("frames"))
    if how.json:
        echo_json(rows)
    else:
        say(video_table(rows))


def _controls(loaded: Model, engine: Engine, budgets: list[float]) -> list[Entry]:
    """Make rows of the same budgets: key frames, simple blocks, and coarse to fine frame by frame."""
    from foveal.calibration.configure import configure
    from foveal.evaluation.baselines import key_frames
    from foveal.evaluation.tally import Entry

    first = {"first_budget": 1.0, "block_tiles": 1}
    simple = [("blockcopy", {**first, "policy": name}) for name in ("difference", "random")]
    rows: list[Entry] = []
    for share in (share for share in dict.fromkeys(budgets) if share < 1):
        for name, settings in (*simple, ("coarse_to_fine", {})):
            config = configure(loaded, name, share, settings)
            made = engine.make(name, config)
            policy, make = str(config.settings["policy"]), partial(_given, made)
            rows.append(Entry(name, policy, share, make, settings=config.settings))
        rows.append(key_frames(engine.dense().dense(), share))
    return rows


def _given(method: AdaptiveSegmenter, target: object) -> AdaptiveSegmenter:
    """Return a method whatever the labels are."""
    return method
