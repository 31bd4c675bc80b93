"""`foveal bench`: speed of the adaptive network, compared with the fastest dense runtimes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.errors import complain, echo_json, say
from foveal.cli.method_options import MethodsCommand, Settings, combinations, given_settings
from foveal.cli.model_options import HELP, check_cpu, open_model
from foveal.cli.options import (
    JsonOption,
    KeepOption,
    MaskOption,
    MethodOption,
    ThreadsOption,
    parse_size,
    prepare,
)

if TYPE_CHECKING:
    from torch import Tensor

    from foveal.benchmark.operation_results import OperationsResult
    from foveal.benchmark.results import BenchResult
    from foveal.benchmark.runtimes import Precision
    from foveal.benchmark.task import Task
    from foveal.data.raster import ImageFormat
    from foveal.hub.checkpoint import Model
    from foveal.methods import MethodConfig

RuntimesOption = Annotated[
    str | None,
    typer.Option(help="torch,compile,onnxruntime,openvino,foveal; default all that are installed."),
]
SIZE = "1024x2048"
BUDGETS, LEVELS = (1.0, 0.55, 0.4, 0.3), (1, 2)
OPS_BUDGETS = (0.4,)
STREET = 24
"""Seed of the first street of a batch."""
STREETS, CALIBRATION = 8, 16
"""Streets, or at most given images, that int8 takes its ranges from."""
SPLIT = "train"
"""Split of a data set that these images are of."""


OpsOption = Annotated[
    bool,
    typer.Option("--ops", help="Time the network operation by operation, with the plan of the first budget."),
]
RangesOption = Annotated[
    str | None,
    typer.Option(help="Folder of images, or a data set KIND:PATH, that int8 takes its ranges from."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(cls=MethodsCommand)(bench)


def bench(
    ctx: typer.Context,
    model: Annotated[str, typer.Option(help=f"{HELP[:-1]}; or an architecture.")] = "swiftnet_rn18",
    size: Annotated[str | None, typer.Option(help=f"Height x width of a generated street; {SIZE}.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Time this image, at its own size, instead of a generated one.")
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(help="Shares of the dense work, one or more; default 1 0.55 0.4 0.3."),
    ] = None,
    method: MethodOption = "segblocks",
    runtimes: RuntimesOption = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Precisions of runtimes and adaptive rows: f32 bf16 int8; default f32."),
    ] = None,
    images: RangesOption = None,
    repeat: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 1,
    threads: ThreadsOption = None,
    keep_memory: KeepOption = True,
    mask: MaskOption = None,
    memory: Annotated[bool, typer.Option("--memory", help="Measure peak memory as well.")] = False,
    picture: Annotated[Path | None, typer.Option(help="PNG file for a chart of speed-up over work.")] = None,
    ops: OpsOption = False,
    json: JsonOption = False,
) -> None:
    """Time the adaptive network against the dense one in the fastest runtimes available.

    Every adaptive row is compared with the fastest runtime of its own precision. Several values may follow
    one option: `--budget 1 0.55 0.4 --precision f32 int8 --max-level 1 2`.
    """
    import torch

    from foveal.adaptive.opening import image_format
    from foveal.benchmark.bench import bench as measure
    from foveal.benchmark.machine import quiet_machine
    from foveal.benchmark.profile_ops import operations
    from foveal.benchmark.runtimes import choose_runtimes
    from foveal.benchmark.task import Task
    from foveal.data.masks import read_wanted

    check_cpu(ctx, "bench times this processor and the runtimes for it")
    check_picture(picture)
    given = {"--runtimes": runtimes, "--precision": precision, "--memory": memory, "--picture": picture}
    _check_ops(ops, given | {"--mask": mask})
    if mask is not None and memory:
        raise ValueError("--memory measures whole images; leave it or --mask out")
    sides = _sides(size, image)
    precisions = _precisions(precision, images)
    names, absent = ([], []) if ops else choose_runtimes(split_names(runtimes), precisions)
    prepare(threads, keep_memory)
    loaded = open_model(ctx, model, untrained=True)
    _check_own(loaded, {"--ops": ops, "--memory": memory})
    budgets = budget or (OPS_BUDGETS if ops else BUDGETS)
    configs = configurations(loaded, method, budgets, given_settings(ctx))
    reading = image_format(loaded)
    pictures = _images(sides, image, batch, reading)
    task = Task(loaded, pictures, method, configs, names, repeat, memory, keep_memory, precisions)
    if mask is not None:
        task = replace(task, wanted=torch.stack([read_wanted(mask, image, task.size)] * batch))
    if "int8" in precisions:
        task = _with_ranges(task, images, image, reading)
    with quiet_machine():
        result = operations(task, progress()) if ops else measure(task, progress())
    for sentence in [*absent, *getattr(result, "left_out", [])]:
        complain(sentence)
    _show(result, picture, json)


def _precisions(given: Sequence[str] | None, images: str | None) -> list[Precision]:
    """Read precisions, each once; f32 if none is given.

    Raises:
        ValueError: One is unknown, or there are images for int8 and it is not among them.
    """
    from foveal.benchmark.runtimes import parse_precision

    found = [parse_precision(text) for text in dict.fromkeys(given or ["f32"])]
    if images is not None and "int8" not in found:
        raise ValueError(f"--images {images} gives int8 its ranges; add --precision int8, or leave it out")
    return found


def split_names(text: str | None) -> list[str] | None:
    """Split names at commas; None if nothing is given."""
    return None if text is None else [name for name in text.split(",") if name]


def configurations(
    loaded: Model, method: str, budgets: Sequence[float], given: Settings
) -> list[MethodConfig]:
    """List every budget with every combination of settings; what runs everything comes once.

    Raises:
        ValueError: A budget is no share, or the method has no such setting.
    """
    from foveal.calibration.configure import configure
    from foveal.methods import METHODS
    from foveal.methods.config import settings_of
    from foveal.storage.names import find

    known = settings_of(find(method, METHODS, "method").Config)
    level = next((name for name in ("max_level", "coarse_level") if name in known), None)
    asked = {level: list(LEVELS)} | given if level else given
    every = [configure(loaded, method, share, values) for values in combinations(asked) for share in budgets]
    return list({("dense", c.budget) if c.is_dense else c: c for c in every}.values())


def check_picture(path: Path | None) -> None:
    """Check that a picture can be written, before minutes of measuring.

    Raises:
        ValueError: It is no PNG file, or its folder does not exist.
    """
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise ValueError(f"--picture is {path}; give a file that ends in .png")
    if not path.parent.is_dir():
        raise ValueError(f"--picture is {path}, whose folder does not exist; make it, or give another file")


def _check_ops(ops: bool, others: Mapping[str, object]) -> None:
    """Refuse options that say nothing about single operations."""
    given = [name for name, value in others.items() if ops and value not in (None, False)]
    if given:
        raise ValueError(
            f"--ops measures no runtimes, precisions, memory or picture; leave {', '.join(given)} out"
        )


def _check_own(loaded: Model, given: Mapping[str, bool]) -> None:
    """Refuse what is measured for architectures of ours only.

    Raises:
        ValueError: It is asked for with another network.
    """
    from foveal.adaptive.opening import AdaptedModel

    asked = [name for name, value in given.items() if value]
    if asked and isinstance(loaded, AdaptedModel):
        raise ValueError(
            f"{', '.join(asked)} is for bundled models and architectures, and {loaded.name} is none; leave "
            "it out"
        )


def _sides(size: str | None, image: Path | None) -> tuple[int, int]:
    if size is not None and image is not None:
        raise ValueError(f"--size {size} and --image {image} exclude one another; an image has its own size")
    return parse_size(size or SIZE)


def _images(
    size: tuple[int, int], path: Path | None, batch: int, reading: ImageFormat, seed: int = STREET
) -> Tensor:
    """Read an image as often as the batch is large, or draw images of a size [px]: [N, C, H, W].

    Those are streets, or patches at random where a network takes other channels than theirs.
    """
    import torch

    from foveal.calibration.latency import picture
    from foveal.data.image import read_image
    from foveal.data.raster import COLOUR
    from foveal.data.synthetic import street

    if path is not None:
        return torch.stack([read_image(path, reading.channels, reading.value_range)] * batch)
    if reading.channels != COLOUR.channels:
        return picture(size, reading.channels).repeat(batch, 1, 1, 1)
    return torch.stack([street(seed + k, size)[0] for k in range(batch)])


def _with_ranges(task: Task, images: str | None, timed: Path | None, reading: ImageFormat) -> Task:
    """Add what int8 takes its ranges from: given images, else the timed one, else generated streets.

    Without given images our own int8 is that of the model's profile, if it has one.
    """
    import torch

    from foveal.calibration.profile import find_profile
    from foveal.data.image_files import open_images
    from foveal.methods.scaling import shrink
    from foveal.models import MODELS

    trained = task.model.name not in MODELS
    if images is not None:
        found = [shrink(image[None], task.size) for image in open_images(images, SPLIT, CALIBRATION, reading)]
        ranges = [torch.cat([image] * len(task.image)) for image in found]
        return replace(task, calibration=ranges, labels_count=trained)
    profile = find_profile(task.model)
    scales = None if profile is None else profile.scales
    if timed is not None:
        return replace(task, calibration=[task.image], scales=scales, labels_count=trained)
    whose = "of the static runtimes " if scales else ""
    complain(
        f"int8 {whose}takes its ranges from generated streets; timings do not depend on them, agreement "
        "does: give --images for it"
    )
    seeds = (STREET + 100 * (k + 1) for k in range(STREETS))
    ranges = [_images(task.size, None, len(task.image), reading, seed) for seed in seeds]
    return replace(task, calibration=ranges, scales=scales, labels_count=False)


def _show(result: BenchResult | OperationsResult, picture: Path | None, json: bool) -> None:
    from foveal.benchmark.results import BenchResult
    from foveal.reporting.bench_text import bench_text, operations_text

    if isinstance(result, BenchResult) and picture is not None:
        from foveal.reporting.bench_chart import draw_bench
        from foveal.storage.atomic import replacing

        with replacing(picture) as part:
            draw_bench(result).savefig(part)
    if json:
        echo_json(asdict(result))
    else:
        say(bench_text(result) if isinstance(result, BenchResult) else operations_text(result))


def progress() -> Callable[[str], None]:
    """Say on stderr what is done next, if somebody watches."""
    if sys.stderr.isatty():
        return lambda text: say(typer.style(text, dim=True), err=True)
    return lambda text: None
