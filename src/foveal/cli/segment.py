"""`foveal segment` and `foveal demo`: images in; labels, overlays, plans and what it cost out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import USER_ERROR, complain, echo_json
from foveal.cli.options import announce, find_images, free_stems, make_folder, prepare

if TYPE_CHECKING:
    from foveal.hub.checkpoint import Model
    from foveal.inference.result import Result
    from foveal.inference.row import SegmentRow
    from foveal.inference.runner import Runner
    from foveal.methods import Request

ModelOption = Annotated[str, typer.Option(help="Bundled model, .safetensors file, or folder of a run.")]
MethodOption = Annotated[str, typer.Option(help="How it adapts; see `foveal methods`.")]
RiskOption = Annotated[
    float | None,
    typer.Option(help="Expected disagreement with the dense network to allow, such as 0.01; after `adapt`."),
]
PolicyOption = Annotated[
    str | None, typer.Option(help="What decides where to look closely; the method's own choice if absent.")
]
BudgetOption = Annotated[
    float | None, typer.Option(help="Share of the dense work, above 0 and at most 1; 0.4 if absent.")
]
TileOption = Annotated[
    int | None, typer.Option(min=1, help="Side of a tile in pixels; as the model recommends.")
]
LevelOption = Annotated[
    int | None, typer.Option(min=0, max=6, help="Coarsest level; as the model recommends.")
]
LookOption = Annotated[int | None, typer.Option(min=0, max=6, help="Level of the first look; likewise.")]
RepeatOption = Annotated[int, typer.Option(min=1, help="Timed rounds of a comparison.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads of the processor; all if absent.")]
KeepOption = Annotated[bool, typer.Option(help="Let the allocator keep freed memory: faster, dense as well.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


LEAST = 1.2
"""A budget below so many times the work of the first look that `adapt` chose gets the card's coarser look."""


def add_to(app: typer.Typer) -> None:
    """Enter the commands."""
    app.command()(segment)
    app.command()(demo)


def segment(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", show_default=False)],
    model: ModelOption = "camvid_rn18",
    method: MethodOption = "segblocks",
    policy: PolicyOption = None,
    budget: BudgetOption = None,
    latency: Annotated[
        float | None, typer.Option(help="Milliseconds that an image may take; chooses the budget.")
    ] = None,
    risk: RiskOption = None,
    tile: TileOption = None,
    coarsest: LevelOption = None,
    look: LookOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out"),
    compare: Annotated[bool, typer.Option("--compare", help="Measure the dense network beside.")] = False,
    always_adapt: Annotated[
        bool, typer.Option("--always-adapt", help="Use tiles also where this machine gains nothing by them.")
    ] = False,
    repeat: RepeatOption = 10,
    threads: ThreadsOption = None,
    keep_memory: KeepOption = True,
    progress: Annotated[bool | None, typer.Option(help="Progress bar; in a terminal if absent.")] = None,
    json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and --json only.")] = False,
) -> None:
    """Segment images: write labels, overlay and plan, and say what it cost."""
    aim: dict[str, Any] = {"latency": latency, "always_adapt": always_adapt, "risk": risk}
    aim |= {} if quiet else {"report": announce}
    runner = make_runner(model, method, policy, budget, (tile, coarsest, look), **aim)
    files, failures = find_images(images)
    make_folder(out)
    prepare(threads, keep_memory)
    show = not (json or quiet)
    hidden = not progress if progress is not None else (quiet or len(files) == 1 or None)
    rows = _segment_all(runner, files, out, failures, repeat if compare else 0, show, hidden)
    one_file = len(images) == 1 and Path(images[0]).is_file()
    if json and (rows or not one_file):
        echo_json(rows[0] if one_file else rows)
    if show and len(files) > 1 and rows:
        from foveal.reporting.segment_text import summary

        typer.echo(summary(rows, out))
    _list_failures(failures, len(rows) + len(failures))


def demo(
    image: Annotated[Path | None, typer.Argument(help="An image; a generated street if absent.")] = None,
    model: ModelOption = "camvid_rn18",
    policy: PolicyOption = None,
    budget: BudgetOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/demo"),
    repeat: RepeatOption = 5,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Segment a generated street, or an image, beside the dense network."""
    runner = make_runner(model, "segblocks", policy, budget, (None, None, None), always_adapt=True)
    make_folder(out)
    prepare(threads, keep=True)
    picture, truth, path = _scene(image, out)
    result = runner(picture, repeat)
    row, text = finish(path, result, out / path.stem, runner, short=False)
    if truth is not None and runner.model.card.classes == _street_classes():
        ours, theirs = (_share_right(labels, truth) for labels in (result.labels, result.dense_labels))
        row = replace(row, accuracy=ours, dense_accuracy=theirs)
        text += f"\n  right    {row.accuracy:.2%} of the pixels, dense {row.dense_accuracy:.2%}"
    if json:
        echo_json(row)
    else:
        typer.echo(text)


def make_runner(
    model: str,
    method: str,
    policy: str | None,
    budget: float | None,
    settings: tuple[int | None, int | None, int | None],
    **aim: Any,
) -> Runner:
    """Load a model, and prepare the method with the settings (tile, coarsest, look) or the model's own.

    Args:
        model: Name, file or folder.
        method: Name.
        policy: Name.
        budget: Share of the dense work; the usual one if absent.
        settings: Tile, coarsest level and level of the first look.
        aim: Latency, risk, always_adapt and report, as of `Runner`; the risk as a number.

    Raises:
        ValueError: There is no such model, method or policy, a number does not fit, or things are given that
            exclude one another.
    """
    from foveal.calibration.profile import find_risk
    from foveal.geometry.plan import check_budget
    from foveal.hub.checkpoint import load_model
    from foveal.inference.runner import Runner
    from foveal.methods import Request

    allowed = aim.pop("risk", None)
    asked = {"--budget": budget, "--latency": aim.get("latency"), "--risk": allowed}
    given = [f"{name} {value:g}" for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude one another; give one, it chooses the others")
    chosen = {"--policy": policy, **dict(zip(("--tile", "--coarsest", "--look"), settings, strict=True))}
    named = [name for name, value in chosen.items() if value is not None]
    if allowed is not None and named:
        raise ValueError(
            f"--risk goes by what foveal adapt found; leave {', '.join(named)} out, or adapt anew"
        )
    budget = check_budget(Request.budget if budget is None else budget)
    loaded = load_model(model)
    if allowed is not None:
        return Runner(loaded, "coarse_to_fine", find_risk(loaded, allowed), **aim)
    return Runner(loaded, method, make_request(loaded, method, policy, budget, settings), **aim)


def make_request(
    loaded: Model,
    method: str,
    policy: str | None,
    budget: float,
    settings: tuple[int | None, int | None, int | None],
) -> Request:
    """Ask for a budget: with what is given, else what `adapt` found, else what the card recommends."""
    from foveal.calibration.profile import find_fit
    from foveal.methods import METHODS, Request

    card = loaded.card
    worth: tuple[float, ...] = ()
    own = (card.tile, card.coarsest, card.look)
    default = METHODS[method].default_policy if method in METHODS else Request.policy
    fit = find_fit(loaded) if method == "coarse_to_fine" else None
    if fit is not None:
        level = max(fit.look, card.look if budget < LEAST * 0.25**fit.look else 0)
        own, default = (fit.tile, settings[2] or level, level), fit.policy
    tile, coarsest, look = (
        mine if given is None else given for given, mine in zip(settings, own, strict=True)
    )
    policy = policy or default
    if fit is not None and (policy, look) == (fit.policy, fit.look):
        worth = fit.worth
    return Request(budget, policy, tile, coarsest, look, loaded.policy, worth=worth)


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


def _segment_all(
    runner: Runner,
    files: list[Path],
    out: Path,
    failures: list[str],
    repeat: int,
    show: bool,
    hidden: bool | None,
) -> list[SegmentRow]:
    """Segment files, write and show each as soon as it is done; return the rows, and add to the failures.

    The progress bar is hidden, shown, or (None) shown in a terminal.
    """
    from tqdm import tqdm

    from foveal.inference.files import segment_files

    many = len(files) > 1
    rows = []
    bar = tqdm(
        segment_files(runner, files, repeat), total=len(files), unit="image", disable=hidden, leave=False
    )
    for (path, outcome), stem in zip(bar, free_stems(files, out), strict=True):
        try:
            row, text = finish(path, outcome, stem, runner, short=many)
        except (ValueError, OSError) as error:
            failures.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        rows.append(row)
        if show:
            with tqdm.external_write_mode():
                typer.echo(text)
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


def _scene(image: Path | None, out: Path) -> tuple[Any, Any, Path]:
    """Read an image, or draw a street with its labels and save it."""
    from foveal.data.image import read_image, save_image
    from foveal.data.synthetic import street

    if image is not None:
        return read_image(image), None, image
    picture, truth = street(24, (720, 960))
    save_image(picture, out / "street.png")
    return picture, truth, out / "street.png"


def _street_classes() -> tuple[str, ...]:
    from foveal.data.synthetic import CLASSES

    return CLASSES
