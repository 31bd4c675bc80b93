"""`foveal methods`, `policies`, `models`, `show` and `check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.model_options import CheckCommand, ShowCommand, open_model, open_network
from foveal.cli.options import MethodOption, parse_size

if TYPE_CHECKING:
    from torch import nn

    from foveal.adaptive.gain import Gain
    from foveal.compatibility import NetworkReport

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FINDINGS = 1
"""Exit code of a check that found something; no error."""


def add_to(app: typer.Typer) -> None:
    """Add the commands to an app."""
    for command in (methods, policies, models):
        app.command()(command)
    app.command(cls=ShowCommand)(show)
    app.command(cls=CheckCommand)(check)


def methods(json: JsonOption = False) -> None:
    """List the adaptive methods."""
    from foveal.cli.listing import methods_text
    from foveal.hub.listing import list_methods

    echo_json(list_methods()) if json else say(methods_text(list_methods()))


def policies(json: JsonOption = False) -> None:
    """List the policies that decide where to compute at full resolution."""
    from foveal.cli.listing import policies_text
    from foveal.hub.listing import list_policies

    echo_json(list_policies()) if json else say(policies_text(list_policies()))


def models(json: JsonOption = False) -> None:
    """List the bundled models and the architectures, with parameters and MACs at 1024x2048."""
    from foveal.cli.listing import models_text
    from foveal.hub.listing import list_architectures, list_models

    bundled, architectures = list_models(), list_architectures()
    if json:
        echo_json({"models": bundled, "architectures": architectures})
    else:
        say(models_text(bundled, architectures))


def show(
    ctx: typer.Context,
    thing: Annotated[str, typer.Argument(metavar="PLAN.json|MODEL|RECIPE.toml", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Draw a saved plan, or print the card of a model or a recipe."""
    path = Path(thing)
    if path.suffix == ".json" and path.is_file() and not path.with_suffix(".safetensors").is_file():
        _show_plan(path, json)
    elif path.suffix == ".toml":
        _show_recipe(path)
    else:
        _show_model(ctx, thing, json)


def check(
    ctx: typer.Context,
    network: Annotated[
        str, typer.Argument(metavar="MODEL|ARCHITECTURE|python.path:function", show_default=False)
    ],
    size: Annotated[str, typer.Option(help="Height x width of the image to try in pixels.")] = "256x256",
    tile: Annotated[int, typer.Option(min=1, help="Side of a tile in pixels.")] = 32,
    method: MethodOption = "coarse_to_fine",
    json: JsonOption = False,
) -> None:
    """Run a network on tiles: list operations without a rule, compare with the dense answer, count the gain.

    Exit code 1 if an operation has no rule, or the answers differ.
    """
    sides = parse_size(size)
    from foveal.cli.listing import check_row
    from foveal.compatibility import check as check_network
    from foveal.methods import METHODS
    from foveal.storage.names import find

    find(method, METHODS, "method")
    found = open_network(ctx, network)
    result = check_network(found, sides, tile)
    gain = _gain(found, result, method, sides)
    if json:
        echo_json(check_row(network, result, method, None if isinstance(gain, str) else gain))
    else:
        say(result.text(method, [gain] * bool(gain) if isinstance(gain, str) else gain.lines))
    if result.findings or not result.equal:
        raise typer.Exit(FINDINGS)


def _gain(network: nn.Module, report: NetworkReport, method: str, size: tuple[int, int]) -> Gain | str:
    """Count what a network gains; a sentence if it cannot be adapted, empty if it does not run on tiles."""
    from foveal.adaptive.gain import find_gain

    if not report.equal:
        return ""
    try:
        return find_gain(network, report, method, size)
    except ValueError as error:
        return str(error)


def _show_plan(path: Path, json: bool) -> None:
    from foveal.geometry.plan import Plan
    from foveal.reporting.plan_text import plan_row, plan_text

    plan = Plan.load(path)
    if json:
        echo_json([plan_row(plan, image) for image in range(len(plan.levels))])
        return
    for image, levels in enumerate(plan.levels):
        say(f"{plan.size[1]} x {plan.size[0]} px, work {float(plan.work[image]):.3f} of dense\n")
        say(plan_text(levels, plan.tile))


def _show_recipe(path: Path) -> None:
    from foveal.training.config import read_recipe

    echo_json(read_recipe(path).as_dict())


def _show_model(ctx: typer.Context, name: str, json: bool) -> None:
    from foveal.cli.listing import model_text
    from foveal.hub.listing import describe_model

    row = describe_model(open_model(ctx, name))
    echo_json(row) if json else say(model_text(row))
