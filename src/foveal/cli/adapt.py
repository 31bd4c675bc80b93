"""`foveal adapt` and `foveal calibrate`: what is measured once of a network and of a machine, no labels."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.method_options import MethodCommand, Settings, given_settings, option_name
from foveal.cli.model_options import ModelArgument, open_model
from foveal.cli.options import (
    JsonOption,
    KeepOption,
    MethodOption,
    PrecisionOption,
    ThreadsOption,
    announce,
    make_folder,
    parse_size,
    parts_bar,
    prepare,
    steps_bar,
)
from foveal.cli.segment import make_runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from foveal.calibration.adapt import Images
    from foveal.calibration.cost_model import CostModel
    from foveal.calibration.latency import Setup
    from foveal.calibration.profile import CalibrationProfile
    from foveal.hub.checkpoint import Model
    from foveal.methods import CoarseToFineConfig

SCORES = ("weighted_entropy", "regional_entropy")
"""Scores to choose from."""
RATE = 2e-4
"""Learning rate of `--steps`."""


def add_to(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command(cls=MethodCommand)(adapt)
    app.command(cls=MethodCommand)(calibrate)


def adapt(
    ctx: typer.Context,
    model: ModelArgument,
    images: Annotated[
        str, typer.Option(help="Folder of images like those to segment later, or a data set KIND:PATH.")
    ],
    split: Annotated[
        str, typer.Option(help="Split of a data set; its labels are read with --risk-of labels only.")
    ] = "train",
    limit: Annotated[int, typer.Option(min=1, help="Largest number of images to use, evenly spaced.")] = 256,
    steps: Annotated[
        int,
        typer.Option(min=0, help="Steps of self-distillation before calibration; 0 for none."),
    ] = 0,
    precision: Annotated[
        str, typer.Option(help="f32, or int8 to find the ranges of an 8-bit program as well.")
    ] = "f32",
    risk_of: Annotated[
        str,
        typer.Option(
            help="dense: disagreement with the dense network; labels: error beyond that network's, of a "
            "data set with masks."
        ),
    ] = "dense",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a copy of the model and its profile; default beside the model."),
    ] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Calibrate a trained network for any budget, latency and risk, from images; no labels are needed.

    Afterwards `segment` and `evaluate` take --method coarse_to_fine with --budget, --latency or --risk.
    """
    from foveal.adaptive.opening import renew_page, save_copy
    from foveal.calibration.adapt import adapt as measure
    from foveal.calibration.adapt import check
    from foveal.calibration.engine import find_engine, int8_scales

    if steps and out is None:
        raise ValueError("--steps changes the weights; give --out FOLDER for the model that comes of it")
    if precision not in ("f32", "int8"):
        raise ValueError(f"--precision is {precision}; give f32, or int8 (bf16 needs no images)")
    prepare(threads)
    loaded = open_model(ctx, model)
    candidates = _candidates(loaded, given_settings(ctx))
    first = candidates[0]
    found, labels = _open(loaded, images, split, limit, risk_of)
    check(loaded, found, first)
    if out is not None:
        make_folder(out)
        loaded = _distil(loaded, found, first, steps, out) if steps else loaded
        card = replace(loaded.card, tile=first.tile, coarse_level=first.coarse_level)
        loaded = save_copy(replace(loaded, card=card), out)
    engine = find_engine(loaded)
    scales = int8_scales(engine, found) if precision == "int8" else None
    profile = replace(measure(loaded, found, candidates, parts_bar(), engine, labels), scales=scales)
    file = profile.save(loaded)
    renew_page(loaded, profile)
    picture = _picture(profile, file)
    if json:
        echo_json({"model": loaded.name, "profile": str(file), "picture": picture} | _row(profile))
        return
    from foveal.reporting.profile_text import profile_text

    say(profile_text(profile, file, picture))


def _row(profile: CalibrationProfile) -> dict[str, Any]:
    """Return what was found as plain values: images, settings and the curve."""
    names = ("images", "chosen_on", "calibrated_on", "risk_of")
    counts = {name: getattr(profile, name) for name in names}
    return counts | asdict(profile.config) | {"curve": [asdict(row) for row in profile.curve]}


def _open(
    loaded: Model, images: str, split: str, limit: int, risk_of: str
) -> tuple[Images, Sequence[Tensor] | None]:
    """Open images, and their labels for a risk of labels.

    Raises:
        ValueError: There are none, or no masks for a risk of labels, or of other classes than the model's.
    """
    from foveal.adaptive.opening import image_format
    from foveal.cli.evaluate import open_labelled
    from foveal.data.dataset import DATASETS
    from foveal.data.image_files import columns, open_images

    if risk_of not in ("dense", "labels"):
        raise ValueError(f"--risk-of is {risk_of}; give dense, or labels for a data set with masks")
    if risk_of == "dense":
        return open_images(images, split, limit, image_format(loaded)), None
    if images.partition(":")[0] not in DATASETS:
        raise ValueError(
            f"--risk-of labels needs masks, and --images is {images}; give a data set KIND:PATH with KIND "
            f"one of {', '.join(DATASETS)}"
        )
    return columns(open_labelled(loaded, images, split), limit)


def _candidates(loaded: Model, given: Settings) -> list[CoarseToFineConfig]:
    """List the settings to choose from: what is given, else scores and levels up to the card's.

    Raises:
        ValueError: A setting is none that can be chosen.
    """
    from foveal.methods import CoarseToFineConfig

    wrong = set(given) - {"policy", "tile", "coarse_level"}
    if wrong:
        names = ", ".join(sorted(map(option_name, wrong)))
        raise ValueError(f"foveal adapt finds {names} by itself, or has no use for it; leave it out")
    level = max(1, loaded.card.coarse_level)
    tile = cast("int", given.get("tile", loaded.card.tile))  # the command line has read them as declared
    levels = [cast("int", given["coarse_level"])] if "coarse_level" in given else range(level, 0, -1)
    scores = [cast("str", given["policy"])] if "policy" in given else SCORES
    return [CoarseToFineConfig(policy=score, tile=tile, coarse_level=at) for at in levels for score in scores]


def _distil(loaded: Model, images: Images, config: CoarseToFineConfig, steps: int, out: Path) -> Model:
    """Run the self-distillation, or go on with it where it was interrupted.

    A run belongs to the weights that it started from: those of another network would go unnoticed.
    """
    from foveal.training.distillation import distil
    from foveal.training.loop import Schedule, resumed_step

    run = out / f"run-{loaded.weights[:8]}"
    schedule = Schedule(steps, RATE, 0.5, warmup=min(30, steps), average=0.99, freeze_norms=True)
    first = resumed_step(run)
    announce(f"self-distillation, {steps} steps on {len(images)} images, from step {first}")
    return distil(loaded, images, config, schedule, run, steps_bar(steps, first, None))


def _picture(profile: CalibrationProfile, file: Path) -> str:
    """Draw quality over work and over time beside what was found; empty, and said, if it cannot be."""
    from foveal.reporting.profile_chart import draw_profile

    path = file.with_suffix(".png")
    try:
        draw_profile(profile.curve, path)
    except OSError as error:
        announce(f"{error}; what was found is kept in {file}")
        return ""
    return str(path)


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
