"""`foveal bench`: how fast the adaptive network is, beside the fastest dense ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import complain, echo_json
from foveal.cli.options import Several, parse_size, prepare
from foveal.cli.segment import (
    KeepOption,
    LookOption,
    MethodOption,
    PolicyOption,
    ThreadsOption,
    TileOption,
    make_request,
)

if TYPE_CHECKING:
    from torch import Tensor

    from foveal.methods import Request

SIZE = "1024x2048"
BUDGETS, COARSEST = (1.0, 0.55, 0.4, 0.3), (1, 2)
OPS_BUDGETS = (0.4,)
STREET = 24
"""Seed of the first street of a batch."""


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(cls=Several)(bench)


def bench(
    model: Annotated[
        str, typer.Option(help="Bundled model, .safetensors file, folder of a run, or an architecture.")
    ] = "swiftnet_rn18",
    size: Annotated[str | None, typer.Option(help=f"Height x width of a generated street; {SIZE}.")] = None,
    image: Annotated[Path | None, typer.Option(help="An image instead, at its own size.")] = None,
    budget: Annotated[
        list[float] | None, typer.Option(help="Shares of the dense work, several; 1 0.55 0.4 0.3.")
    ] = None,
    coarsest: Annotated[
        list[int] | None, typer.Option(min=0, max=6, help="Coarsest levels that may occur, several; 1 2.")
    ] = None,
    method: MethodOption = "segblocks",
    policy: PolicyOption = None,
    tile: TileOption = None,
    look: LookOption = None,
    peers: Annotated[
        str | None, typer.Option(help="torch,compile,onnxruntime,openvino; those installed if absent.")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 1,
    threads: ThreadsOption = None,
    keep_memory: KeepOption = True,
    memory: Annotated[bool, typer.Option("--memory", help="Measure peak memory as well.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw speed-up over work into this PNG file.")] = None,
    ops: Annotated[
        bool,
        typer.Option(
            "--ops", help="Time the network operation by operation, on the plan of the first budget."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time the adaptive network in turns with the dense one in the fastest runtimes there are.

    Several values may follow one option: `--budget 1 0.55 0.4 --coarsest 1 2`.
    """
    from foveal.benchmark.bench import Task
    from foveal.benchmark.bench import bench as measure
    from foveal.benchmark.profile_ops import operations
    from foveal.benchmark.runtimes import choose_peers
    from foveal.hub.untrained import find_model
    from foveal.methods import Request

    check_picture(picture)
    _check_ops(ops, {"--peers": peers is not None, "--memory": memory, "--picture": picture is not None})
    sides = _sides(size, image)
    chosen = None if peers is None else [name for name in peers.split(",") if name]
    names, absent = ([], []) if ops else choose_peers(chosen)
    prepare(threads, keep_memory)
    loaded = find_model(model)
    first = make_request(loaded, method, policy, Request.budget, (tile, None, look))
    wanted = requests(first, budget or (OPS_BUDGETS if ops else BUDGETS), coarsest or COARSEST)
    task = Task(loaded, _images(sides, image, batch), method, wanted, names, repeat, memory, keep_memory)
    result = (operations if ops else measure)(task, _progress())
    for sentence in [*absent, *result.get("left_out", [])]:
        complain(sentence)
    _show(result, picture, json)


def requests(first: Request, budgets: Sequence[float], coarsest: Sequence[int]) -> list[Request]:
    """Ask for every budget with every coarsest level; at budget 1 nothing is coarse, and it comes once.

    Raises:
        ValueError: A budget is no share.
    """
    from dataclasses import replace

    from foveal.geometry.plan import check_budget

    pairs = [(check_budget(share), level if share < 1 else 0) for level in coarsest for share in budgets]
    return [replace(first, budget=share, coarsest=level) for share, level in dict.fromkeys(pairs)]


def check_picture(path: Path | None) -> None:
    """See that a picture can be written, before minutes of measuring.

    Raises:
        ValueError: It is no PNG file, or its folder does not exist.
    """
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise ValueError(f"--picture is {path}; give a file that ends in .png")
    if not path.parent.is_dir():
        raise ValueError(f"--picture is {path}, whose folder does not exist; make it, or give another file")


def _check_ops(ops: bool, others: dict[str, bool]) -> None:
    """Refuse options that say nothing about single operations."""
    given = [name for name, there in others.items() if ops and there]
    if given:
        raise ValueError(f"--ops measures no peers, memory or picture; leave {', '.join(given)} out")


def _sides(size: str | None, image: Path | None) -> tuple[int, int]:
    if size is not None and image is not None:
        raise ValueError(f"--size {size} and --image {image} exclude one another; an image has its own size")
    return parse_size(size or SIZE)


def _images(size: tuple[int, int], path: Path | None, batch: int) -> Tensor:
    """Read an image as often as the batch is large, or draw streets of a size [px]: [N, 3, H, W]."""
    import torch

    from foveal.data.image import read_image
    from foveal.data.synthetic import street

    if path is not None:
        return torch.stack([read_image(path)] * batch)
    return torch.stack([street(STREET + k, size)[0] for k in range(batch)])


def _show(result: dict[str, Any], picture: Path | None, json: bool) -> None:
    if picture is not None:
        from foveal.reporting.charts import draw_bench

        draw_bench(result).save(picture)
    if json:
        echo_json(result)
    else:
        from foveal.reporting.bench_text import bench_text, operations_text

        typer.echo(operations_text(result) if "nodes" in result else bench_text(result))


def _progress() -> Callable[[str], None]:
    """Say on stderr what is done next, if somebody watches."""
    if sys.stderr.isatty():
        return lambda text: typer.echo(typer.style(text, dim=True), err=True)
    return lambda text: None
