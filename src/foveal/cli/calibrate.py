"""`foveal calibrate`: how fast this machine is with a model; `segment` goes by it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import echo_json
from foveal.cli.options import announce, parse_size, prepare
from foveal.cli.segment import (
    JsonOption,
    KeepOption,
    LevelOption,
    LookOption,
    MethodOption,
    PolicyOption,
    ThreadsOption,
    TileOption,
    make_runner,
)

if TYPE_CHECKING:
    from foveal.calibration.cost_model import CostModel
    from foveal.calibration.machine import Setup


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command()(calibrate)


def calibrate(
    model: Annotated[str, typer.Argument(help="Bundled model, .safetensors file, or folder of a run.")],
    size: Annotated[str, typer.Option(help="Height x width of the largest image in pixels.")] = "720x960",
    method: MethodOption = "segblocks",
    policy: PolicyOption = None,
    tile: TileOption = None,
    coarsest: LevelOption = None,
    look: LookOption = None,
    threads: ThreadsOption = None,
    keep_memory: KeepOption = True,
    json: JsonOption = False,
) -> None:
    """Measure again how fast this machine is with a model, and keep it for `segment`.

    `segment --latency` measures by itself if need be; `segment --budget` only uses what is there.
    """
    from foveal.calibration.machine import calibrate as measure

    sides = parse_size(size)
    setup = make_runner(model, method, policy, None, (tile, coarsest, look)).setup
    prepare(threads, keep_memory)
    found = measure(setup, sides, announce)
    row = cost_row(setup, found)
    if json:
        echo_json(row)
        return
    from foveal.reporting.profile_text import cost_text

    title = "{model}, {method}, tile {tile} px, coarsest {coarsest}, look {look}, threads {threads}"
    typer.echo(cost_text(found, title.format(**row)))


def cost_row(setup: Setup, found: CostModel) -> dict[str, Any]:
    """Numbers and measurements of a cost model as plain values [ms], and where it is kept."""
    import torch

    asked = setup.request
    head = {"model": setup.name, "method": setup.method, "policy": asked.policy, "tile": asked.tile}
    levels = {"coarsest": asked.coarsest, "look": asked.look, "threads": torch.get_num_threads()}
    return {**head, **levels, **asdict(found), "file": str(setup.file)}
