"""Shared start of commands: images, output folder, threads and memory, messages, progress bars."""

from __future__ import annotations

import inspect
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from foveal.cli.errors import say

MethodOption = Annotated[str, typer.Option(help="Adaptive method; see `foveal methods`.")]
RiskOption = Annotated[
    float | None,
    typer.Option(help="Expected disagreement with the dense network to allow, such as 0.01; needs `adapt`."),
]
PrecisionOption = Annotated[
    str, typer.Option(help="f32, bf16 or int8; int8 after `foveal adapt --precision int8`.")
]
MaskOption = Annotated[
    str | None,
    typer.Option(help="Where to compute: an image, not 0 where wanted; a folder of one each; or nodata."),
]
MaskShareOption = Annotated[
    float, typer.Option(min=0, max=0.999, help="A tile runs if more than this share of it is wanted.")
]
BudgetOption = Annotated[
    float | None, typer.Option(help="Share of the dense work, above 0 and at most 1; default 0.4.")
]
RepeatOption = Annotated[int, typer.Option(min=1, help="Timed rounds of a comparison.")]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="Evaluate this many images only, the first ones.")
]
DataOption = Annotated[str, typer.Option(help="camvid:PATH, cityscapes:PATH, mapillary:PATH or folder:PATH.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Number of CPU threads; default all.")]
KeepOption = Annotated[
    bool, typer.Option(help="Let the allocator keep freed memory; faster, also for dense.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def given(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave a value for an option, be it the default one."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def find_images(arguments: Iterable[str]) -> tuple[list[Path], list[str]]:
    """List the image files that arguments stand for, each once, and the sentences about those that do not."""
    from foveal.data.image import list_images

    files: dict[Path, Path] = {}
    failures = []
    for argument in arguments:
        try:
            for path in list_images(argument):
                files.setdefault(path.resolve(), path)
        except (ValueError, OSError) as error:
            failures.append(str(error))
    return list(files.values()), failures


def make_folder(folder: Path) -> None:
    """Make a folder, and check that files can be written there.

    Raises:
        OSError: They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (
            "a file is in the way"
            if isinstance(error, FileExistsError | NotADirectoryError)
            else error.strerror
        )
        raise OSError(f"--out {folder} cannot be written ({reason}); give another folder") from None


def free_stems(files: Iterable[Path], out: Path) -> list[Path]:
    """Choose where the pictures of every file go: numbered where names repeat, never over an input."""
    from foveal.reporting.pictures import picture_files

    files = list(files)
    inputs = {file.resolve() for file in files}
    taken: set[str] = set()
    stems = []
    for file in files:
        stem, number = file.stem, 1
        while stem.lower() in taken or inputs & _resolved(picture_files(out / stem)):
            number += 1
            stem = f"{file.stem}-{number}"
        taken.add(stem.lower())
        stems.append(out / stem)
    return stems


def _resolved(files: dict[str, Path]) -> set[Path]:
    return {file.resolve() for file in files.values()}


def prepare(threads: int | None, keep: bool = True) -> None:
    """Set the number of threads, and tune the allocator."""
    import torch

    from foveal.cost import keep_memory

    if threads is not None:
        torch.set_num_threads(threads)
    if keep:
        keep_memory()


def parse_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH [px].

    Raises:
        ValueError: It is something else.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isascii() and width.isascii() and height.isdigit() and width.isdigit()):
        raise ValueError(f"size is '{text}'; give HEIGHTxWIDTH in pixels, such as 256x512")
    if min(int(height), int(width)) < 1:
        raise ValueError(f"size is '{text}'; both sides must be at least 1 px")
    return int(height), int(width)


def announce(text: str) -> None:
    """Say on stderr what is done next, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"foveal: {text}", file=sys.stderr)


class Several(TyperCommand):
    """A command whose repeatable options take several values at once: `--budget 0.4 0.3`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before every further value, then read on as usual."""
        options = {
            name
            for option in self.get_params(ctx)
            if getattr(option, "multiple", False)
            for name in option.opts
        }
        return super().parse_args(ctx, spread(args, options))


def spread(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Write an option before every value that follows another value of it: --a 1 2 as --a 1 --a 2."""
    out: list[str] = []
    name, values = "", 0
    for word in words:
        if word.startswith("--"):
            option, equals, _ = word.partition("=")
            name, values = option if option in options else "", len(equals)
        elif name and values and not word.startswith("-"):
            out.append(name)
        else:
            values = 1
        out.append(word)
    return out


def carried_options(annotations: Mapping[str, Any], key: str) -> list[Any]:
    """Make options, as typer parameters, whose given values a context keeps under a key."""

    def carrier(**values: Any) -> None:
        """Carry the options."""

    carrier.__annotations__ = dict(annotations)
    carrier.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in annotations.items()
        ]
    )
    app = typer.Typer(add_completion=False)
    app.command()(carrier)
    options = [param for param in typer.main.get_command(app).params if param.name in annotations]
    for option in options:
        option.expose_value, option.callback = False, partial(_keep, key)
    return options


def _keep(key: str, ctx: Any, param: Any, value: Any) -> Any:
    """Keep a value that was given."""
    if value is not None and value != () and value != []:
        ctx.meta.setdefault(key, {})[param.name] = value
    return value


def counter(unit: str, name: str = "") -> Any:
    """Make a progress bar on stderr that is told what is done and the total."""
    from tqdm import tqdm

    bar = tqdm(desc=name or None, unit=unit, file=sys.stderr, disable=not sys.stderr.isatty())

    def report(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return report


def steps_bar(steps: int, first: int, batches: Any) -> Any:
    """Make the report of a training run: a bar in a terminal, else a line now and then."""
    from tqdm import tqdm

    bar = tqdm(total=steps, initial=first, unit="steps", file=sys.stderr, disable=not sys.stderr.isatty())
    start = time.monotonic()

    def report(step: int, values: dict[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        bar.update(step + 1 - bar.n)
        bar.set_postfix_str(text, refresh=False)
        if bar.disable and (step % 50 == 0 or step + 1 == steps):
            left = (time.monotonic() - start) / (step + 1 - first) * (steps - step - 1) / 60
            walked = f"  epoch {batches.epoch(step + 1):.1f}" if batches is not None else ""
            say(f"step {step + 1}/{steps}{walked}  {text}  {left:.0f} min left", err=True)

    return report


def parts_bar() -> Any:
    """Make a bar for every part of the work, by its name."""
    bars: dict[str, Any] = {}

    def report(name: str, done: int, total: int) -> None:
        bars.setdefault(name, counter("images", name))(done, total)

    return report
