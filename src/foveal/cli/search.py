"""`foveal search`: which exits of a network to ask, and when an image may leave, for any budget."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.evaluate import open_labelled
from foveal.cli.frontier import check_shares
from foveal.cli.model_options import ModelArgument, ModelCommand, open_model
from foveal.cli.options import DataOption, JsonOption, ThreadsOption, announce, parts_bar, prepare

BUDGETS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(cls=ModelCommand)(search)


def search(
    ctx: typer.Context,
    model: ModelArgument,
    data: DataOption,
    split: Annotated[
        str, typer.Option(help="Split of the data set; other images than those you report results on.")
    ] = "val",
    budgets: Annotated[
        list[float] | None, typer.Option(help="Shares of the dense work; default 0.3 to 0.9.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use this many images only, the first.")] = None,
    timed: Annotated[int, typer.Option(min=0, help="Images to time the stages on; 0 for none.")] = 3,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Find which exits of a network to ask, and how sure they must be, for any budget.

    Needs a model whose exits were trained (method mess) and labelled images. All choices of exits and
    thresholds are tried; afterwards `segment --method mess` and `evaluate --method mess` use what was found.
    """
    from foveal.calibration.engine import find_engine
    from foveal.calibration.exit_search import search_exits

    shares = check_shares("--budgets", budgets or BUDGETS)
    loaded = open_model(ctx, model)
    dataset = open_labelled(loaded, data, split)
    prepare(threads)
    engine = find_engine(loaded)
    announce(f"running every exit of {loaded.name} on {dataset.name}")
    found = search_exits(engine, dataset, shares, limit, timed, parts_bar())
    file = found.settings.save(loaded)
    if json:
        echo_json({**asdict(found), "file": str(file)})
        return
    from foveal.reporting.search_text import search_text

    say(search_text(found, file))
