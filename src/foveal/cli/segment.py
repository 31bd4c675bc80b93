"""`foveal segment` and `foveal demo`: images in; labels, overlays, plans and what it cost out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import USER_ERROR, complain, echo_json, say
from foveal.cli.method_options import MethodCommand, Settings, given_settings, option_name
from foveal.cli.model_options import ModelCommand, ModelOption, open_model
from foveal.cli.options import (
    BudgetOption,
    JsonOption,
    KeepOption,
    MaskOption,
    MaskShareOption,
    MethodOption,
    PrecisionOption,
    RepeatOption,
    RiskOption,
    ThreadsOption,
    announce,
    find_images,
    free_stems,
    given,
    make_folder,
    prepare,
)

if TYPE_CHECKING:
    from foveal.data.masks import Masks
    from foveal.data.raster import ImageFormat
    from foveal.hub.checkpoint import Model
    from foveal.inference.result import Result
    from foveal.inference.row import SegmentRow
    from foveal.inference.runner import Runner


def add_to(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command(cls=MethodCommand)(segment)
    app.command(cls=ModelCommand)(demo)


def segment(
    ctx: typer.Context,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", show_default=False)],
    model: ModelOption = "camvid_rn18",
    method: MethodOption = "segblocks",
    budget: BudgetOption = None,
    latency: Annotated[
        float | None, typer.Option(help="Largest time per image [ms]; chooses the budget.")
    ] = None,
    risk: RiskOption = None,
    precision: PrecisionOption = "f32",
    mask: MaskOption = None,
    mask_share: MaskShareOption = 0.0,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out"),
    compare: Annotated[bool, typer.Option("--compare", help="Also time the dense network.")] = False,
    always_adapt: Annotated[
        bool, typer.Option("--always-adapt", help="Run on tiles even where this machine gains nothing.")
    ] = False,
    repeat: RepeatOption = 10,
    threads: ThreadsOption = None,
    keep_memory: KeepOption = True,
    progress: Annotated[
        bool | None, typer.Option(help="Show a progress bar; default in a terminal only.")
    ] = None,
    json: JsonOption = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only errors and the output of --json.")
    ] = False,
) -> None:
    """Segment images: write labels, overlay and plan, and report the cost."""
    aim: dict[str, Any] = {"latency": latency, "always_adapt": always_adapt, "risk": risk}
    aim |= {"precision": precision} | ({} if quiet else {"report": announce})
    from foveal.adaptive.opening import image_format
    from foveal.data.masks import open_masks

    loaded, masks = open_model(ctx, model), None if mask is None else open_masks(mask)
    named = {"method": method, "precision": precision}
    aim["named"] = frozenset(name for name in named if given(ctx, name))
    runner = make_runner(loaded, method, budget, given_settings(ctx), **aim)
    runner.mask_share = mask_share
    files, failures = find_images(images)
    make_folder(out)
    prepare(threads, keep_memory)
    show = not (json or quiet)
    hidden = not progress if progress is not None else (quiet or len(files) == 1 or None)
    task = Task(files, repeat if compare else 0, image_format(loaded), masks)
    rows = _segment_all(runner, task, out, failures, show, hidden)
    one_file = len(images) == 1 and Path(images[0]).is_file()
    if json and (rows or not one_file):
        echo_json(rows[0] if one_file else rows)
    if show and len(files) > 1 and rows:
        from foveal.reporting.segment_text import summary

        say(summary(rows, out))
    _list_failures(failures, len(rows) + len(failures))


def demo(
    ctx: typer.Context,
    image: Annotated[
        Path | None, typer.Argument(help="Image to segment; default a generated street.")
    ] = None,
    model: ModelOption = "camvid_rn18",
    budget: BudgetOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/demo"),
    repeat: RepeatOption = 5,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Segment an image, by default a generated street, and compare with the dense network."""
    from foveal.adaptive.opening import image_format

    loaded = open_model(ctx, model)
    runner = make_runner(loaded, "segblocks", budget, {}, always_adapt=True)
    make_folder(out)
    prepare(threads, keep=True)
    picture, truth, path = _scene(image, out, image_format(loaded))
    result = runner(picture, repeat)
    row, text = finish(path, result, out / path.stem, runner, short=False)
    if truth is not None and runner.model.card.classes == _street_classes():
        ours, theirs = (_share_right(labels, truth) for labels in (result.labels, result.dense_labels))
        row = replace(row, accuracy=ours, dense_accuracy=theirs)
        text += f"\n  right    {row.accuracy:.2%} of the pixels, dense {row.dense_accuracy:.2%}"
    if json:
        echo_json(row)
    else:
        say(text)


def make_runner(loaded: Model, method: str, budget: float | None, settings: Settings, **aim: Any) -> Runner:
    """Prepare the method of a model with the settings that are given or the model's own.

    Args:
        loaded: The model.
        method: Name.
        budget: Share of the dense work; the usual one if absent.
        settings: Of the method, by name.
        aim: Latency, risk, always_adapt, report and precision, as of `Runner`; the risk as a number. And the
            names of those of method and precision that the user gave; all if absent.

    Raises:
        ValueError: There is no such method or setting, a number does not fit, or things are given that
            exclude one another.
    """
    from foveal.calibration.configure import Asked, choose
    from foveal.calibration.engine import find_engine
    from foveal.calibration.profile import METHOD, find_risk
    from foveal.inference.runner import Runner

    allowed, named = aim.pop("risk", None), aim.pop("named", {"method", "precision"})
    precision = aim.pop("precision", "f32")
    asked = {"--budget": budget, "--latency": aim.get("latency"), "--risk": allowed}
    limits = [f"{name} {value:g}" for name, value in asked.items() if value is not None]
    if len(limits) > 1:
        raise ValueError(f"{' and '.join(limits)} exclude one another; give one, it chooses the others")
    if allowed is not None and settings:
        raise ValueError(
            f"--risk goes by what foveal adapt found; leave {', '.join(map(option_name, settings))} out, or "
            "adapt anew"
        )
    wish = Asked(
        method if "method" in named else None,
        precision if "precision" in named else None,
        settings,
        budget,
        aim.get("latency"),
    )
    chosen = None if allowed is not None else choose(loaded, wish, method)
    engine = find_engine(loaded, precision if chosen is None else chosen.precision)
    if engine.warning and "report" in aim:
        aim["report"](engine.warning)
    if chosen is None:
        return Runner(engine, METHOD, find_risk(loaded, allowed), **aim)
    return Runner(engine, chosen.method, chosen, **aim)


def finish(
    path: Path, outcome: Result | Exception, stem: Path, runner: Runner, short: bool
) -> tuple[SegmentRow, str]:
    """Write the pictures of a result; return its row and its text.

    Raises:
        ValueError: The outcome is an error, or a picture cannot be made.
        OSError: A file cannot be read or written.
    """
    from foveal.inference.row import segment_row
    from foveal.reporting import pictures, segment_text

    if isinstance(outcome, Exception):
        raise outcome
    card = runner.model.card
    files = pictures.save_pictures(outcome, card.palette, stem)
    row = segment_row(path, outcome, files, card.classes)
    if short:
        return row, segment_text.segment_line(path, outcome)
    return row, segment_text.segment_text(path, outcome, files, card.classes)


@dataclass(frozen=True)
class Task:
    """What is segmented.

    Attributes:
        files: Image files.
        repeat: Timed rounds; 0 compares nothing.
        reading: How files become images.
        masks: Where the wanted pixels come from; None if all are wanted.
    """

    files: list[Path]
    repeat: int
    reading: ImageFormat
    masks: Masks | None


def _segment_all(
    runner: Runner, task: Task, out: Path, failures: list[str], show: bool, hidden: bool | None
) -> list[SegmentRow]:
    """Segment files, write and show each as soon as it is done; return the rows, and add to the failures.

    The progress bar is hidden, shown, or (None) shown in a terminal.
    """
    from tqdm import tqdm

    from foveal.inference.files import segment_files

    many = len(task.files) > 1
    rows = []
    found = segment_files(runner, task.files, task.repeat, task.reading, task.masks)
    bar = tqdm(found, total=len(task.files), unit="image", disable=hidden, leave=False)
    for (path, outcome), stem in zip(bar, free_stems(task.files, out), strict=True):
        try:
            row, text = finish(path, outcome, stem, runner, short=many)
        except (ValueError, OSError) as error:
            failures.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        rows.append(row)
        if show:
            with tqdm.external_write_mode():
                say(text)
    return rows


def _list_failures(failures: list[str], inputs: int) -> None:
    """Name what could not be segmented, and leave with the code of user errors."""
    for sentence in failures:
        complain(sentence)
    if failures and inputs > 1:
        complain(f"{len(failures)} of {inputs} inputs could not be segmented")
    if failures:
        raise typer.Exit(USER_ERROR)


def _share_right(labels: Any, truth: Any) -> float:
    """Return the share of the pixels with the true label."""
    return round(float((labels == truth).double().mean()), 5)


def _scene(image: Path | None, out: Path, reading: ImageFormat) -> tuple[Any, Any, Path]:
    """Read an image, or draw a street with its labels and save it."""
    from foveal.data.image import read_image, save_image
    from foveal.data.synthetic import street

    if image is not None:
        return read_image(image, reading.channels, reading.value_range), None, image
    picture, truth = street(24, (720, 960))
    save_image(picture, out / "street.png")
    return picture, truth, out / "street.png"


def _street_classes() -> tuple[str, ...]:
    from foveal.data.synthetic import CLASSES

    return CLASSES
