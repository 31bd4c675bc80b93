"""`foveal evaluate` and `foveal train`: quality over a data set, and networks from recipes."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.door import echo_json

if TYPE_CHECKING:
    from foveal.engine.checkpoint import Model
    from foveal.engine.evaluate import Entry


def add_to(app: typer.Typer) -> None:
    """Enter the commands."""
    app.command()(evaluate)
    app.command()(train)


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundled model, .safetensors file or folder of a run.")],
    data: Annotated[str, typer.Option(help="camvid:PATH, cityscapes:PATH, mapillary:PATH or folder:PATH.")],
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    budget: Annotated[list[float] | None, typer.Option(help="Shares of the dense work; repeatable.")] = None,
    more: Annotated[list[float] | None, typer.Argument(hidden=True)] = None,
    method: Annotated[str, typer.Option(help="How it adapts; see `foveal methods`.")] = "segblocks",
    policy: Annotated[list[str] | None, typer.Option(help="What decides; repeatable.")] = None,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Side of a tile in pixels; the model's if absent.")
    ] = None,
    coarsest: Annotated[int | None, typer.Option(min=0, max=6, help="Coarsest level.")] = None,
    look: Annotated[int | None, typer.Option(min=0, max=6, help="Level of the first look.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first images only.")] = None,
    timed: Annotated[int, typer.Option(min=0, help="Images to time; 0 for none.")] = 16,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the processor to use.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure quality and cost over a labelled data set, the dense network first.

    Several budgets may follow one --budget: `--budget 0.25 0.4 0.6`.
    """
    from foveal.cost import keep_memory
    from foveal.data.dataset import open_dataset
    from foveal.engine.checkpoint import load_model
    from foveal.engine.evaluate import evaluate as measure
    from foveal.fused import faster
    from foveal.report import evaluation_table

    loaded, dataset = load_model(model), open_dataset(data, split)
    loaded = replace(loaded, network=faster(loaded.network))  # type: ignore[arg-type]
    if len(dataset.classes) != len(loaded.card.classes):
        raise ValueError(
            f"{model} knows {len(loaded.card.classes)} classes and {data} has {len(dataset.classes)}; give a "
            "model that was trained on these classes"
        )
    settings = {"tile": tile, "coarsest": coarsest, "look": look}
    budgets = [*(budget or []), *(more or [])] or [0.4]
    entries = [
        _entry(loaded, method, name, share, settings) for name in policy or ["entropy"] for share in budgets
    ]
    keep_memory()
    _use_threads(threads)
    rows = measure(loaded.network, dataset, entries, timed, limit, _counter("images"))
    if json:
        echo_json(rows)
    else:
        typer.echo(evaluation_table(rows))


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a TOML file.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value; repeatable.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME if absent.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the processor to use.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a network as a recipe says; a killed run goes on exactly with --resume."""
    from json import dumps

    from foveal.build import build_run, save_run
    from foveal.config import read_recipe
    from foveal.cost import keep_memory
    from foveal.engine.train import resumed_step
    from foveal.engine.train import train as run_training

    wanted = read_recipe(recipe, overrides or [])
    folder = run or Path("runs") / recipe.stem
    first = resumed_step(folder)
    if first and not resume:
        raise ValueError(f"{folder} holds a run at step {first}; give --resume to go on, or another --run")
    keep_memory()
    _use_threads(threads)
    method, batches, schedule, dataset = build_run(wanted, folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(dumps(wanted.as_dict(), indent=1))
    network = run_training(
        method, batches, schedule, folder, wanted.train.device, _steps(schedule.steps, first, batches)
    )
    path = save_run(wanted, folder, network, dataset)  # type: ignore[arg-type]
    if json:
        echo_json({"run": str(folder), "model": str(path), "steps": schedule.steps, "resumed_from": first})
        return
    typer.echo(f"wrote {path}; see it with: foveal evaluate {folder} --data {wanted.data.train}")


def _entry(loaded: Model, method: str, policy: str, budget: float, settings: dict[str, Any]) -> Entry:
    """A row of the evaluation; the oracle is made anew for the labels of every image."""
    from foveal.engine.evaluate import Entry
    from foveal.methods import METHODS, Request, SegBlocks
    from foveal.policies import create_policy

    if method not in METHODS:
        raise ValueError(f"no method named '{method}'; available: {', '.join(METHODS)}")
    card, network = loaded.card, loaded.network
    tile, coarsest, look = (
        getattr(card, name) if value is None else value for name, value in settings.items()
    )
    if policy == "oracle":
        return Entry(
            method,
            policy,
            budget,
            lambda target: SegBlocks(
                network, create_policy(policy, budget, tile, coarsest, look, (network, target))
            ),
        )
    made = METHODS[method].on_request(network, Request(budget, policy, tile, coarsest, look))
    return Entry(method, policy, budget, lambda target: made)


def _use_threads(threads: int | None) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


def _counter(unit: str) -> Any:
    """Make a progress bar on stderr that is told what is done and the total."""
    from tqdm import tqdm

    bar = tqdm(unit=unit, file=sys.stderr, disable=not sys.stderr.isatty())

    def report(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return report


def _steps(steps: int, first: int, batches: Any) -> Any:
    """Make the report of a training run: a bar in a terminal, else a line now and then."""
    from tqdm import tqdm

    bar = tqdm(total=steps, initial=first, unit="steps", file=sys.stderr, disable=not sys.stderr.isatty())
    start = time.monotonic()

    def report(step: int, values: dict[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        bar.update(step + 1 - bar.n)
        bar.set_postfix_str(text, refresh=False)
        if bar.disable and (step % 50 == 0 or step + 1 == steps):
            left = (time.monotonic() - start) / (step + 1 - first) * (steps - step - 1) / 60
            epoch = batches.epoch(step + 1)
            typer.echo(f"step {step + 1}/{steps}  epoch {epoch:.1f}  {text}  {left:.0f} min left", err=True)

    return report
