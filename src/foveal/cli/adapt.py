"""`foveal adapt`: fit a trained network for any budget, latency and risk; no labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import echo_json
from foveal.cli.options import announce, make_folder, prepare
from foveal.cli.progress import parts_bar, steps_bar
from foveal.cli.segment import JsonOption, LookOption, PolicyOption, ThreadsOption, TileOption

if TYPE_CHECKING:
    from foveal.calibration.adapt import Images
    from foveal.hub.checkpoint import Model
    from foveal.methods import Request

SCORES = ("weighted_entropy", "regional_entropy")
"""Scores to choose from."""
RATE = 2e-4
"""Learning rate of `--steps`."""


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command()(adapt)


def adapt(
    model: Annotated[str, typer.Argument(help="Bundled model, .safetensors file, or folder of a run.")],
    images: Annotated[
        str, typer.Option(help="Folder of images like those that will come; or a data set KIND:PATH.")
    ],
    split: Annotated[str, typer.Option(help="Split of a data set; its labels are not read.")] = "train",
    limit: Annotated[int, typer.Option(min=1, help="Images to use at most, evenly spaced.")] = 256,
    steps: Annotated[
        int,
        typer.Option(min=0, help="Steps of self-distillation under random refinements first; 0 for none."),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a copy of the model with what is found; beside it if absent."),
    ] = None,
    policy: PolicyOption = None,
    tile: TileOption = None,
    look: LookOption = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Fit a trained network for any budget, latency and risk, from images alone.

    Afterwards `segment` and `evaluate` take --method coarse_to_fine with --budget, --latency or --risk.
    """
    from foveal.calibration.adapt import adapt as measure
    from foveal.calibration.adapt import check
    from foveal.hub.checkpoint import load_model, save_model
    from foveal.methods import Request
    from foveal.reporting.profile_chart import draw_fit

    if steps and out is None:
        raise ValueError("--steps changes the weights; give --out FOLDER for the model that comes of it")
    prepare(threads)
    loaded = load_model(model)
    card = loaded.card
    level = look if look is not None else max(1, card.look)
    requests = [
        Request(0.4, name, tile or card.tile, at, at)
        for at in ([look] if look is not None else range(level, 0, -1))
        for name in ([policy] if policy else SCORES)
    ]
    request = requests[0]
    found = _images(images, split, limit)
    check(loaded, found, request)
    if out is not None:
        make_folder(out)
        loaded = _distil(loaded, found, request, steps, out) if steps else loaded
        card = replace(card, tile=request.tile, look=level)
        path = save_model(loaded.network, card, out / "model.safetensors", policy=loaded.policy)
        loaded = load_model(path)
    fit = measure(loaded, found, requests, parts_bar())
    file = fit.save(loaded)
    picture = file.with_suffix(".png")
    draw_fit(fit.curve, picture)
    row = {
        "model": loaded.name,
        "fit": str(file),
        "picture": str(picture),
        "images": fit.images,
        "tile": fit.tile,
        "look": fit.look,
        "policy": fit.policy,
        "worth": fit.worth,
        "curve": fit.curve,
    }
    if json:
        echo_json(row)
        return
    from foveal.reporting.profile_text import fit_text

    typer.echo(fit_text(fit, file, picture))


def _images(source: str, split: str, limit: int) -> Images:
    """List images of a folder or a data set, evenly spaced; they are read when they are used."""
    from foveal.data.dataset import DATASETS, open_dataset
    from foveal.data.image import list_images

    kind, _, path = source.partition(":")
    if kind == "folder":  # opening it as a data set would read the masks to count their classes
        folder = Path(path).expanduser() / "images"
        files = list_images(folder / split if (folder / split).is_dir() else folder)
    elif kind in DATASETS:
        files = [pair.image for pair in open_dataset(source, split).pairs]
    else:
        files = list_images(source)
    count = min(limit, len(files))
    return _Files([files[k * len(files) // count] for k in range(count)])


class _Files(list[Any]):
    """Image files that give the image [3, H, W] when they are indexed."""

    def __getitem__(self, index: Any) -> Any:
        from foveal.data.image import read_image

        return read_image(super().__getitem__(index))


def _distil(loaded: Model, images: Images, request: Request, steps: int, out: Path) -> Model:
    """Run the self-distillation, or go on with it where it was interrupted.

    A run belongs to the weights that it started from: those of another network would go unnoticed.
    """
    from foveal.hub.checkpoint import fingerprint
    from foveal.training.distillation import distil
    from foveal.training.loop import Schedule, resumed_step

    run = out / f"run-{fingerprint(loaded.network)[:8]}"
    schedule = Schedule(steps, RATE, 0.5, warmup=min(30, steps), average=0.99, freeze_norms=True)
    first = resumed_step(run)
    announce(f"self-distillation, {steps} steps on {len(images)} images, from step {first}")
    return distil(loaded, images, request, schedule, run, steps_bar(steps, first, None))
