"""`foveal large`: an image of any size from disk to disk."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.method_options import MethodCommand, given_settings
from foveal.cli.model_options import ModelOption, open_model
from foveal.cli.options import BudgetOption, JsonOption, PrecisionOption, ThreadsOption, announce, prepare

if TYPE_CHECKING:
    from foveal.inference.large import Progress

SILENT = 10.0
"""Time between two lines where there is no terminal [s]."""
FORMAT = "{desc}: {percentage:3.0f} %|{bar}| {n:.0f}/{total:.0f} MP {rate_fmt} {remaining} left{postfix}"
STAGES = {"coarse": "coarse pass", "fine": "refining", "write": "writing"}


class LargeCommand(MethodCommand):
    """A command with the settings of the method that runs on large images."""

    only = "coarse_to_fine"


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(cls=LargeCommand)(large)


def large(
    ctx: typer.Context,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="What is written: .png, .tif (COG) or .zarr (OME-Zarr).")
    ],
    model: ModelOption = "camvid_rn18",
    budget: BudgetOption = None,
    mask: Annotated[
        str | None,
        typer.Option(
            help="Where to compute: nodata, auto (not blank), polygons (.geojson), or an image of any "
            "resolution, not 0 where wanted."
        ),
    ] = None,
    window: Annotated[int, typer.Option(min=1, help="Side of what is computed at once (px).")] = 2048,
    bands: Annotated[
        str | None, typer.Option(help="Bands to read, counted from 1, with commas: 4,3,2.")
    ] = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Write the probability of every label too, as bytes.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(help="K/N: do the K-th of N parts; whoever finds all done writes.")
    ] = None,
    precision: PrecisionOption = "f32",
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only errors and the output of --json.")
    ] = False,
) -> None:
    """Segment an image of any size: a coarse pass over all of it, one plan, then the windows that pay.

    Memory does not grow with the height of the image. A run that was killed goes on where it was when the
    same command is given again. What a mask does not want is neither read nor computed.
    """
    from foveal.adaptive.opening import image_format
    from foveal.calibration.engine import find_engine
    from foveal.inference.large import segment_large
    from foveal.methods import MethodConfig

    chosen, part = _numbers(bands), _shard(shard)
    loaded = open_model(ctx, model)
    engine = find_engine(loaded, precision)
    if engine.warning and not quiet:
        announce(engine.warning)
    if out.exists() and image.exists() and out.samefile(image):
        raise ValueError(f"-o {out} is the image itself; give another file")
    prepare(threads, keep=False)
    found = segment_large(
        engine,
        image,
        out,
        budget=MethodConfig.budget if budget is None else budget,
        mask=mask,
        window=window,
        confidence=confidence,
        value_range=image_format(loaded).value_range,
        bands=chosen,
        settings=given_settings(ctx),
        shard=part,
        report=Bar(quiet),
    )
    from foveal.reporting.large_text import large_row, large_text

    if json:
        echo_json(large_row(image, found))
    elif not quiet:
        say(large_text(image, found))


class Bar:
    """Progress on stderr: a bar in a terminal, else a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._stage, self._said = quiet, "", 0.0
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        """Show how far a run is."""
        if self._quiet:
            return
        if sys.stderr.isatty():
            self._draw(progress)
        elif time.monotonic() - self._said > SILENT or progress.pixels == progress.total:
            self._said = time.monotonic()
            say(f"foveal: {_line(progress)}", err=True)

    def _draw(self, progress: Progress) -> None:
        from tqdm import tqdm

        if progress.stage != self._stage:
            self._stage = progress.stage
            self._bar = tqdm(
                desc=STAGES[progress.stage], total=progress.total / 1e6, unit="MP", file=sys.stderr,
                bar_format=FORMAT,
            )  # fmt: skip
        self._bar.set_postfix_str(f"{progress.tiles} tiles", refresh=False)
        self._bar.update(progress.pixels / 1e6 - self._bar.n)
        if progress.pixels == progress.total:
            self._bar.close()


def _line(progress: Progress) -> str:
    share = progress.pixels / max(1, progress.total)
    return (
        f"{STAGES[progress.stage]} {share:.0%}, {progress.speed:.1f} MP/s, {progress.tiles} tiles so far, "
        f"{progress.left:.0f} s left"
    )


def _numbers(text: str | None) -> tuple[int, ...]:
    """Read bands.

    Raises:
        ValueError: They are none.
    """
    parts = [] if text is None else text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"--bands is '{text}'; give numbers from 1 with commas, such as 4,3,2")
    return tuple(int(part) for part in parts)


def _shard(text: str | None) -> tuple[int, int]:
    """Read K/N.

    Raises:
        ValueError: It is something else.
    """
    first, _, last = (text or "1/1").partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ValueError(f"--shard is '{text}'; give K/N with K from 1 to N, such as 1/4")
    return int(first), int(last)
