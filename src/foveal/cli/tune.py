"""`foveal tune`: the best settings for any budget and time, from labelled images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.errors import complain, echo_json, say
from foveal.cli.evaluate import open_labelled
from foveal.cli.frontier import check_shares
from foveal.cli.model_options import ModelArgument, ModelCommand, open_model
from foveal.cli.options import DataOption, JsonOption, ThreadsOption, announce, parts_bar, prepare

if TYPE_CHECKING:
    from foveal.calibration.engine import Engine
    from foveal.calibration.tune import TuneResult
    from foveal.hub.checkpoint import Model


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(cls=ModelCommand)(tune)


def tune(
    ctx: typer.Context,
    model: ModelArgument,
    data: DataOption,
    split: Annotated[
        str, typer.Option(help="Split of the data set; other images than those you report results on.")
    ] = "val",
    budgets: Annotated[
        list[float] | None, typer.Option(help="Shares of the dense work; default 0.1 0.15 0.2 0.3 0.4 0.55.")
    ] = None,
    scales: Annotated[
        list[float] | None, typer.Option(help="Scales of the image's sides; default 1 0.75 0.63 0.5 0.35.")
    ] = None,
    tiles: Annotated[
        list[int] | None, typer.Option(min=1, help="Sides of a tile in pixels; default the model's.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Precisions: f32 bf16 int8; default f32.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use this many images only, the first.")] = None,
    first: Annotated[int, typer.Option(min=1, help="Images that all settings are tried on.")] = 3,
    timed: Annotated[int, typer.Option(min=0, help="Images to time; 0 for none: only work counts.")] = 3,
    repeat: Annotated[int, typer.Option(min=1, help="Timed rounds over these images.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which images are taken.")] = 0,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Find the best settings for any budget and latency, from labelled images.

    Scale of the image, levels, score, schedule, method and precision are tried by executed runs. Afterwards
    `segment` and `evaluate` use what was found, unless a method or setting is given.
    """
    from foveal.calibration.candidates import BUDGETS, SCALES, Space
    from foveal.calibration.tune import Effort
    from foveal.calibration.tune import tune as search
    from foveal.methods.base import check_tile

    shares = check_shares("--budgets", budgets or BUDGETS)
    sides = check_shares("--scales", scales or SCALES)
    loaded = open_model(ctx, model)
    dataset = open_labelled(loaded, data, split)
    prepare(threads)
    engines = _engines(loaded, precision or ["f32"])
    for tile in tiles or ():
        check_tile(loaded.network, tile)
    space = Space(shares, sides, tuple(dict.fromkeys(tiles or ())))
    effort = Effort(limit, first, timed, repeat, seed)
    found = search(engines, dataset, space, effort, announce, parts_bar())
    file = found.settings.save(loaded)
    for sentence in found.left_out:
        complain(sentence)
    picture = _picture(found, file)
    if json:
        echo_json({**_row(found), "file": str(file), "picture": picture})
        return
    from foveal.reporting.tune_text import tune_text

    say(tune_text(found, file, picture))


def _engines(loaded: Model, precisions: list[str]) -> dict[str, Engine]:
    """Find what runs a model in every precision.

    Raises:
        ValueError: There is no program in one of them, or no ranges for int8 were found yet.
    """
    from foveal.calibration.engine import PRECISIONS, find_engine

    for name in precisions:
        if name not in PRECISIONS:
            raise ValueError(f"--precision is {name}; give some of {', '.join(PRECISIONS)}")
    plain = find_engine(loaded)
    if plain.warning:
        announce(plain.warning)
    names = dict.fromkeys(precisions)
    return {name: plain if name == "f32" else plain.in_precision(name) for name in names}


def _row(found: TuneResult) -> dict[str, object]:
    """Return what was found, with the sentences about it."""
    from foveal.reporting.tune_text import conclusions

    return {**asdict(found), "conclusions": conclusions(found)}


def _picture(found: TuneResult, file: Path) -> str:
    """Draw quality over work, and over time if it was taken; empty, and said, if it cannot be."""
    from foveal.reporting.tune_chart import draw_tune

    path = file.with_suffix(".png")
    try:
        draw_tune(found, path)
    except OSError as error:
        announce(f"{error}; what was found is kept in {file}")
        return ""
    return str(path)
