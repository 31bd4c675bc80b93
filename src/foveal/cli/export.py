"""`foveal export`: a trained network as one file, which runs without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.model_options import ModelArgument, ModelCommand, open_model
from foveal.cli.options import JsonOption, PrecisionOption, ThreadsOption, prepare

if TYPE_CHECKING:
    from foveal.hub.checkpoint import Model
    from foveal.program.quantise import Scales


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(cls=ModelCommand)(export)


def export(
    ctx: typer.Context,
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(help="File to write, such as weeds.foveal.")],
    precision: PrecisionOption = "f32",
    images: Annotated[
        str | None,
        typer.Option(
            help="Folder of images like those to segment, or a data set KIND:PATH, for the ranges of int8; "
            "default those that foveal adapt --precision int8 found."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a data set; labels are not read.")] = "train",
    limit: Annotated[int, typer.Option(min=1, help="Largest number of images to use, evenly spaced.")] = 24,
    scale: Annotated[
        float | None,
        typer.Option(
            help="Share of their sides that images are shrunk to first; default the model's.",
            min=0.01,
            max=1.0,
        ),
    ] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Write a trained network as one file for foveal.runtime (NumPy alone) and foveal.h (C).

    The file says the settings that `foveal adapt` found, or else the model's own.
    """
    from foveal.adaptive.opening import scale_of
    from foveal.calibration.engine import find_engine
    from foveal.calibration.export import info_of, program_of, write_program
    from foveal.calibration.profile import find_profile

    if images is not None and precision != "int8":
        raise ValueError(f"--images is for --precision int8, and the precision is {precision}; leave it out")
    prepare(threads)
    loaded = open_model(ctx, model)
    profile = find_profile(loaded)
    program = program_of(loaded)
    if precision != "f32":
        known = None if profile is None else profile.scales
        scales = known if images is None else _scales(loaded, images, split, limit)
        if precision == "int8" and scales is None:
            raise ValueError(
                f"there are no ranges for int8 of {loaded.name} yet; give --images FOLDER with images like "
                "those to segment, no labels needed"
            )
        program = find_engine(loaded, precision, scales).program or program
    shrunk = scale_of(loaded) if scale is None else scale
    write_program(program, file, info_of(loaded, profile, shrunk))
    size = file.stat().st_size
    if json:
        steps = len(program.tables.names)
        row = {"model": loaded.name, "file": str(file), "bytes": size, "precision": precision}
        echo_json({**row, "steps": steps, "scale": shrunk})
        return
    say(f"{file}: {loaded.name} in {precision}, {size / 1e6:.1f} MB, for foveal.runtime and foveal.h")


def _scales(loaded: Model, images: str, split: str, limit: int) -> Scales:
    """Find the ranges of int8 on images."""
    from foveal.adaptive.opening import image_format
    from foveal.calibration.engine import find_engine, int8_scales
    from foveal.data.image_files import open_images

    return int8_scales(find_engine(loaded), open_images(images, split, limit, image_format(loaded)))
