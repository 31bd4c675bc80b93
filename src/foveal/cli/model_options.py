"""Options of networks: every command that takes a model reads its name, and what goes with it, here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from foveal.cli.options import Several, carried_options

if TYPE_CHECKING:
    from torch import nn

    from foveal.adaptive.opening import Reference
    from foveal.hub.checkpoint import Model

GIVEN = "foveal.model"
"""Where a context keeps the options that were given."""
HELP = "Bundled model, .safetensors file, folder of a run or a saved model, or module:function."

ModelArgument = Annotated[str, typer.Argument(help=HELP)]
ModelOption = Annotated[str, typer.Option(help=HELP)]

WEIGHTS: dict[str, Any] = {
    "weights": Annotated[
        Path | None,
        typer.Option(help="Weights for module:function: safetensors, or a state dict of torch."),
    ],
    "trust_source": Annotated[
        bool | None,
        typer.Option("--trust-source", help="Call the function that a saved folder names for its network."),
    ],
}
IMAGES: dict[str, Any] = {
    "classes": Annotated[str | None, typer.Option(help="Names of the classes, with commas: soil,crop,weed.")],
    "range": Annotated[
        str | None,
        typer.Option(help="LOW:HIGH, values of image files that become 0 and 1, such as 0:10000."),
    ],
}
DEVICE: dict[str, Any] = {
    "device": Annotated[str | None, typer.Option(help="Where the network runs: cpu, cuda, cuda:1, mps.")],
}

SMALL: dict[str, Any] = {
    "small": Annotated[
        str | None,
        typer.Option(help="Small network that model_select asks first; named as the model is."),
    ],
}


class ShowCommand(Several):
    """A command that finds a network and does not run it on images."""

    options: ClassVar[dict[str, Any]] = WEIGHTS

    def get_params(self, ctx: Any) -> list[Any]:
        """Add the options of the model."""
        return [*super().get_params(ctx), *carried_options(self.options, GIVEN)]


class CheckCommand(ShowCommand):
    """A command that tries a network on images of its own."""

    options: ClassVar[dict[str, Any]] = {**WEIGHTS, **DEVICE}


class ModelCommand(ShowCommand):
    """A command that runs a network on images."""

    options: ClassVar[dict[str, Any]] = {**WEIGHTS, **IMAGES, **DEVICE}


def reference(ctx: typer.Context, name: str) -> Reference:
    """Read how the user names a network.

    Raises:
        ValueError: The range is none.
    """
    from foveal.adaptive.opening import Reference

    given = ctx.meta.get(GIVEN, {})
    names = tuple(name for name in given.get("classes", "").split(",") if name)
    return Reference(
        name,
        given.get("weights"),
        bool(given.get("trust_source")),
        names,
        parse_range(given["range"]) if "range" in given else None,
        given.get("device", "cpu"),
        given.get("small", ""),
    )


def check_cpu(ctx: typer.Context, why: str) -> None:
    """Refuse a device other than the CPU.

    Raises:
        ValueError: One is given.
    """
    device = ctx.meta.get(GIVEN, {}).get("device", "cpu")
    if device != "cpu":
        raise ValueError(f"--device is {device}, and {why}; leave it out")


def open_model(ctx: typer.Context, name: str, untrained: bool = False) -> Model:
    """Find the network that a command is given, and what is known about it.

    Raises:
        ValueError: There is none, or it does not fit what is given with it.
    """
    from foveal.adaptive.opening import open_model as find

    return find(reference(ctx, name), untrained)


def open_network(ctx: typer.Context, name: str) -> nn.Module:
    """Find a network as it is, without trying it on tiles.

    Raises:
        ValueError: There is none.
    """
    from foveal.adaptive.opening import open_network as find

    return find(reference(ctx, name))


def parse_range(text: str) -> tuple[float, float]:
    """Read LOW:HIGH.

    Raises:
        ValueError: It is something else.
    """
    from foveal.adaptive.spec import read_range

    try:
        found = read_range(text.split(":"))
    except ValueError:
        found = None
    if found is None:
        raise ValueError(f"--range is '{text}'; give LOW:HIGH, two numbers, such as 0:10000")
    return found
