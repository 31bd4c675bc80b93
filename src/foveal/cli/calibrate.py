"""`foveal calibrate`: measure run times of a model on this machine, for `segment`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.method_options import MethodCommand, given_settings
from foveal.cli.model_options import ModelArgument, open_model
from foveal.cli.options import (
    JsonOption,
    KeepOption,
    MethodOption,
    PrecisionOption,
    ThreadsOption,
    announce,
    parse_size,
    prepare,
)
from foveal.cli.segment import make_runner

if TYPE_CHECKING:
    from foveal.calibration.cost_model import CostModel
    from foveal.calibration.latency import Setup


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(cls=MethodCommand)(calibrate)


def calibrate(
    ctx: typer.Context,
    model: ModelArgument,
    size: Annotated[str, typer.Option(help="Height x width of the largest image in pixels.")] = "720x960",
    method: MethodOption = "segblocks",
    precision: PrecisionOption = "f32",
    threads: ThreadsOption = None,
    keep_memory: KeepOption = True,
    json: JsonOption = False,
) -> None:
    """Measure how fast this machine runs a model, and store the result for `segment`.

    `segment --latency` measures if nothing is stored; `segment --budget` only uses a stored result.
    """
    from foveal.calibration.latency import calibrate as measure

    sides = parse_size(size)
    setup = make_runner(open_model(ctx, model), method, None, given_settings(ctx), precision=precision).setup
    prepare(threads, keep_memory)
    found = measure(setup, sides, announce)
    row = cost_row(setup, found)
    if json:
        echo_json(row)
        return
    from foveal.reporting.profile_text import cost_text

    say(cost_text(found, f"{setup.name}, {setup.title}, threads {row['threads']}"))


def cost_row(setup: Setup, found: CostModel) -> dict[str, Any]:
    """Numbers and measurements of a cost model as plain values [ms], and where it is kept."""
    import torch

    from foveal.calibration.latency import COSTS

    head = {"model": setup.name, "method": setup.method, "config": asdict(setup.config)}
    return {**head, "threads": torch.get_num_threads(), **asdict(found), "file": str(COSTS.path(setup.key))}
