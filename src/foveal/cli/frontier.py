"""`foveal frontier`: quality over milliseconds, beside every static runtime, precision and scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.bench import RuntimesOption, progress, split_names
from foveal.cli.errors import complain, echo_json, say
from foveal.cli.evaluate import open_labelled
from foveal.cli.model_options import ModelArgument, ModelCommand, check_cpu, open_model
from foveal.cli.options import DataOption, LimitOption, ThreadsOption, counter, make_folder, prepare

if TYPE_CHECKING:
    from torch import Tensor

    from foveal.benchmark.conclusion import FrontierResult
    from foveal.benchmark.contenders import Contender
    from foveal.benchmark.frontier import Effort, Measurement
    from foveal.benchmark.runtimes import Choice
    from foveal.calibration.engine import Engine
    from foveal.data.pairs import Dataset
    from foveal.hub.checkpoint import Model

SCALES = (1.0, 0.75, 0.5, 0.35)
BUDGETS = (0.15, 0.2, 0.25, 0.3, 0.4, 0.55)
OURS = ("dense", "segblocks", "coarse_to_fine")


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(cls=ModelCommand)(frontier)


def frontier(
    ctx: typer.Context,
    model: ModelArgument,
    data: DataOption,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    scales: Annotated[
        list[float] | None,
        typer.Option(help="Scales of the image for static runtimes; default 1 0.75 0.5 0.35."),
    ] = None,
    base_scales: Annotated[
        list[float] | None,
        typer.Option(help="Scales of the image for adaptive methods, before they decide; default 1."),
    ] = None,
    coarse_levels: Annotated[
        list[int] | None,
        typer.Option(help="Levels of the first pass of methods that have one; default the model's.", min=0),
    ] = None,
    budget: Annotated[
        list[float] | None, typer.Option(help="Shares of the dense work; default 0.15 0.2 0.25 0.3 0.4 0.55.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(help="Methods, see `foveal methods`; default segblocks coarse_to_fine."),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Precisions: f32 bf16 int8; default all.")
    ] = None,
    runtimes: RuntimesOption = None,
    limit: LimitOption = None,
    calibration: Annotated[int, typer.Option(min=1, help="Number of images for the ranges of int8.")] = 16,
    calibration_split: Annotated[
        str | None, typer.Option(help="Split of these images; default train, or --split if there is none.")
    ] = None,
    timed: Annotated[int, typer.Option(min=1, help="Number of images to time.")] = 4,
    repeat: Annotated[int, typer.Option(min=1, help="Timed rounds over these images.")] = 5,
    threads: ThreadsOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for frontier.json and frontier.png.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure quality over milliseconds, from an image in memory to labels at its full size.

    Static rivals are every runtime, precision and scale of the whole image; ours are methods and budgets.
    Several values may follow one option: `--scales 1 0.5`.
    """
    from foveal.benchmark.conclusion import Subject, summarise
    from foveal.benchmark.engines import find_engines
    from foveal.benchmark.frontier import Effort
    from foveal.benchmark.machine import quiet_machine
    from foveal.benchmark.runtimes import PRECISIONS, choose_runtimes, packages_of, parse_precision
    from foveal.calibration.engine import int8_scales

    check_cpu(ctx, "frontier times this processor and the runtimes for it")
    wanted = [parse_precision(text) for text in dict.fromkeys(precision or PRECISIONS)]
    choices, absent = choose_runtimes(split_names(runtimes), wanted)
    shares = check_shares("--scales", scales or SCALES)
    loaded = open_model(ctx, model)
    dataset = open_labelled(loaded, data, split)
    if out is not None:
        make_folder(out)
    prepare(threads)
    ranges = _calibration(data, calibration_split, dataset, calibration) if "int8" in wanted else []
    pictures = [image for batch in ranges for image in batch]
    engines, unable = find_engines(loaded, wanted, lambda plain: int8_scales(plain, pictures))
    bases = check_shares("--base-scales", base_scales or [1.0])
    ours = adaptive_contenders(
        loaded, methods or OURS, budget or BUDGETS, engines, bases, coarse_levels or []
    )
    effort = Effort(limit, timed, repeat, quiet_machine)
    static = own_contenders(engines, choices, shares)
    found = _measure(loaded, dataset, (choices, shares, ranges), [*static, *ours], effort)
    packages, left_out = frozenset(packages_of(choices)), (*absent, *unable)
    _show(summarise(found, Subject(loaded.name, dataset.name, len(ranges), packages, left_out)), out, json)


def _measure(
    loaded: Model,
    dataset: Dataset,
    static: tuple[Sequence[Choice], Sequence[float], Sequence[Tensor]],
    ours: Sequence[Contender],
    effort: Effort,
) -> Measurement:
    """Measure static runtimes, given with scales and calibration images, and contenders of our own."""
    import tempfile

    import torch

    from foveal.benchmark.contenders import StaticContender, StaticRivals
    from foveal.benchmark.frontier import measure_frontier
    from foveal.benchmark.runtimes import OWN, fold_norms

    choices, scales, ranges = static
    with tempfile.TemporaryDirectory() as folder:
        shared = StaticRivals(fold_norms(loaded.network), ranges, Path(folder), torch.get_num_threads())
        others = [choice for choice in choices if choice.runtime != OWN]
        rivals = [StaticContender(choice, scale, shared) for choice in others for scale in scales]
        return measure_frontier([*rivals, *ours], dataset, effort, progress(), counter("images"))


def own_contenders(
    engines: Sequence[Engine], choices: Sequence[Choice], scales: Sequence[float]
) -> list[Contender]:
    """List our own dense network at every scale, in the precisions in which it was asked for."""
    from foveal.benchmark.contenders import OwnContender
    from foveal.benchmark.runtimes import OWN, Choice

    asked = [engine for engine in engines if Choice(OWN, engine.precision) in choices]
    return [OwnContender(engine, scale) for engine, scale in product(asked, scales)]


def check_shares(option: str, values: Sequence[float]) -> list[float]:
    """Return the given shares, between 0 and 1, without duplicates.

    Raises:
        ValueError: One is not above 0 and at most 1.
    """
    for value in values:
        if not 0 < value <= 1:
            raise ValueError(f"{option} is {value:g}; give shares above 0 and at most 1, such as 0.5")
    return list(dict.fromkeys(values))


def adaptive_contenders(
    loaded: Model,
    methods: Sequence[str],
    budgets: Sequence[float],
    engines: Sequence[Engine],
    scales: Sequence[float] = (1.0,),
    levels: Sequence[int] = (),
) -> list[Contender]:
    """List every method at every budget, scale, level and precision; the dense network has one a precision.

    Args:
        loaded: The model.
        methods: Names in `foveal.methods.METHODS`.
        budgets: Shares of the dense work on the whole image. What pays for all of the image at a scale has
            no row there, nor has the dense network: those are static ones.
        engines: Run the model, one a precision.
        scales: Of the image's sides, before a method decides.
        levels: Of the first pass, where a method has one; the model's own if there are none.

    Raises:
        ValueError: There is no method of that name, or a budget is no share.
    """
    from dataclasses import replace

    from foveal.benchmark.contenders import AdaptiveContender
    from foveal.calibration.configure import configure
    from foveal.methods import METHODS
    from foveal.methods.config import settings_of
    from foveal.storage.names import find

    shares, chosen = check_shares("--budget", budgets), list(dict.fromkeys(methods))
    first: list[int | None] = [*dict.fromkeys(levels)] or [None]
    every = []
    for name, scale, share, level in product(chosen, scales, shares, first):
        if share < scale**2 or scale == 1:
            known = settings_of(find(name, METHODS, "method").Config)
            given = {} if level is None or "coarse_level" not in known else {"coarse_level": level}
            within = configure(loaded, name, min(1.0, share / scale**2), given)
            if within.adjustable or scale == 1:
                every.append((name, replace(within, budget=share, scale=scale)))
    configs = list({(name, c.is_dense or c): (name, c) for name, c in every}.values())
    return [AdaptiveContender(name, engine, config) for engine in engines for name, config in configs]


def _calibration(data: str, split: str | None, dataset: Dataset, count: int) -> list[Tensor]:
    """Read images spread over the training split; over the measured one, with a word, if there is none."""
    from foveal.data.dataset import open_dataset

    try:
        source = open_dataset(data, split or "train", dataset.reading)
    except ValueError:
        if split is not None:
            raise
        complain(f"{data} has no split 'train'; int8 takes its ranges from {dataset.name} itself")
        source = dataset
    count = min(count, len(source))
    return [source[k * len(source) // count][0][None].contiguous() for k in range(count)]


def _show(result: FrontierResult, out: Path | None, json: bool) -> None:
    from json import dumps

    from foveal.reporting.frontier_chart import draw_frontier
    from foveal.reporting.frontier_text import frontier_text
    from foveal.storage.atomic import replacing_all

    for sentence in result.left_out:
        complain(sentence)
    if out is not None:
        with replacing_all([out / "frontier.json", out / "frontier.png"]) as (numbers, chart):
            numbers.write_text(dumps(asdict(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            draw_frontier(result).savefig(chart)
    if json:
        echo_json(asdict(result))
    else:
        say(frontier_text(result))
