"""`foveal train`: a network from a recipe, and what is said about it before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.evaluate import entry
from foveal.cli.method_options import Settings
from foveal.cli.options import JsonOption, ThreadsOption, announce, counter, prepare, steps_bar

if TYPE_CHECKING:
    from torch import nn

    from foveal.data.dataset import Dataset
    from foveal.evaluation.rows import EvalRow
    from foveal.training.config import Recipe


Losses = Sequence[Mapping[str, "str | float"]]
"""Rows of `foveal.training.log.summary`: at, step, and every loss by its name."""


@dataclass(frozen=True)
class RunPlace:
    """Where a run starts and runs.

    Attributes:
        first: Step that it goes on with.
        epochs: Length of the run in epochs.
        device: Name of the device.
        processes: Number of processes.
    """

    first: int
    epochs: float
    device: str
    processes: int


@dataclass(frozen=True)
class RunRow:
    """A training run. In JSON a field whose default is None is left out while it is None.

    Attributes:
        run: Folder of the run.
        network: Name of the architecture.
        parameters: Number of parameters.
        trained_parameters: Number of those that are trained.
        data: Data set, KIND:PATH.
        split: Split that it is trained on.
        images: Number of images.
        classes: Number of classes.
        method: Name of the method, and of a policy that is trained.
        steps: Length of the run.
        resumed_from: Step that it goes on with.
        batch: Images per step.
        seed: Seed of all random numbers.
        epochs: Length of the run in epochs.
        device: Name of the device.
        processes: Number of processes.
        model: File of the trained model; once it is written.
        losses: Means of the losses at its start, quarter, half and end; once it ended.
        evaluation: Rows of the evaluation that the recipe asks for.
    """

    run: str
    network: str
    parameters: int
    trained_parameters: int
    data: str
    split: str
    images: int
    classes: int
    method: str
    steps: int
    resumed_from: int
    batch: int
    seed: int
    epochs: float
    device: str
    processes: int
    model: str | None = None
    losses: Losses | None = None
    evaluation: list[EvalRow] | None = None


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command()(train)


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a TOML file.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value; repeatable.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to train: cpu, cuda, cuda:1, mps; default the recipe's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")] = False,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Train a network from a recipe; --resume continues an interrupted run exactly.

    Several processes: torchrun --nproc-per-node 2 -m -- foveal train RECIPE.
    """
    from foveal.adaptive.opening import find_device
    from foveal.data.dataset import open_dataset
    from foveal.training.build import build_run, save_run
    from foveal.training.config import read_recipe
    from foveal.training.distributed import World, joined
    from foveal.training.log import summary
    from foveal.training.loop import resumed_step
    from foveal.training.loop import train as run_training
    from foveal.training.run import alone, check_recipe, write_recipe

    where = [] if device is None else [f"train.device={device}"]
    wanted = read_recipe(recipe, [*(overrides or []), *where])
    find_device(wanted.train.device, "train.device" if device is None else "--device")
    folder = run or Path("runs") / recipe.stem
    judged = None
    if wanted.train.evaluate:
        judged = open_dataset(wanted.data.train, wanted.train.evaluate, names=wanted.data.classes)
    prepare(threads)
    with joined(wanted.train.device) as device, alone(folder):
        world = World.current()
        first = resumed_step(folder)
        if first and not resume:
            raise ValueError(
                f"{folder} holds a run at step {first}; give --resume to go on, or another --run"
            )
        if resume:
            check_recipe(folder, wanted)
        method, batches, schedule, dataset = build_run(wanted, folder)
        epochs = round(batches.epoch(schedule.steps), 2)
        about = describe(wanted, folder, method, dataset, RunPlace(first, epochs, device, world.size))
        report = None
        if world.first:
            write_recipe(folder, wanted)
            for note in dataset.notes:
                announce(note)
            say(announcement(about), err=True)
            report = steps_bar(schedule.steps, first, batches)
        run_training(method, batches, schedule, folder, device, report or (lambda step, _: None))
        if not world.first:
            return
        path = save_run(wanted, folder, method, dataset, _origin())
    evaluation = None if judged is None else _judge(wanted, folder, judged)
    result = replace(about, model=str(path), losses=summary(folder), evaluation=evaluation)
    if json:
        echo_json(result)
    else:
        say(outcome(result))


def _origin() -> dict[str, str]:
    """Say what trains, for the card; a run that was resumed is the same run."""
    from foveal.benchmark.machine import describe_machine

    found = describe_machine()
    command = found.command.replace(" --resume", "")
    return {"command": command, "commit": found.commit or "", "machine": found.machine}


def _judge(wanted: Recipe, folder: Path, data: Dataset) -> list[EvalRow]:
    """Evaluate what was trained: the dense network and, for an adaptive method, a row at its own budget."""
    from foveal.adaptive.opening import Reference, image_format, open_model
    from foveal.calibration.configure import Chosen, configure
    from foveal.calibration.engine import find_engine
    from foveal.evaluation.evaluate import evaluate as measure
    from foveal.methods import METHODS, MethodConfig
    from foveal.methods.config import settings_of
    from foveal.policies import AnswerGate, PolicyNet

    part = wanted.method
    loaded = open_model(Reference(str(folder), trusted=True, small=getattr(part, "small", "")))
    data = replace(data, reading=image_format(loaded))
    data = data.named(loaded.card.classes) if data.counted else data
    engine = find_engine(loaded)
    if METHODS[part.name].Config().is_dense:
        return measure(engine.dense(), data, [], 0, None, counter("images"))
    budget, settings = part.trained_budget, Settings()
    policy = loaded.part(PolicyNet)
    if policy is not None and budget is not None:
        budget, settings = min(1.0, budget + policy.share), {"policy": "learned"}
    if loaded.part(AnswerGate) is not None:  # it was trained for the answers that these settings give
        known = settings_of(METHODS[part.name].Config)
        settings = {name: getattr(part, name) for name in type(part).model_fields if name in known}
    share = budget or MethodConfig.budget
    rows = [entry(loaded, engine, Chosen(part.name, configure(loaded, part.name, share, settings)), share)]
    return measure(engine.dense(), data, rows, 0, None, counter("images"))


def describe(recipe: Recipe, folder: Path, method: nn.Module, dataset: Dataset, place: RunPlace) -> RunRow:
    """Describe what a run will do."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in method.parameters()]
    policy = getattr(recipe.method, "policy", "")
    return RunRow(
        run=str(folder),
        network=recipe.model.name,
        parameters=sum(size for size, _ in sizes),
        trained_parameters=sum(size for size, trained in sizes if trained),
        data=recipe.data.train,
        split=recipe.data.split,
        images=len(dataset),
        classes=len(dataset.classes),
        method=f"{recipe.method.name} {policy}".strip(),
        steps=recipe.train.steps,
        resumed_from=place.first,
        batch=recipe.train.batch,
        seed=recipe.seed,
        epochs=place.epochs,
        device=place.device,
        processes=place.processes,
    )


def announcement(row: RunRow) -> str:
    """Write what a run will do in a few lines."""
    processes = f"{row.processes} process{'es' if row.processes > 1 else ''}"
    lines = {
        "network": f"{row.network}, {row.parameters / 1e6:.2f} M parameters, "
        f"{row.trained_parameters / 1e6:.2f} M of them trained",
        "data": f"{row.data}, {row.split}: {row.images} images, {row.classes} classes",
        "method": row.method,
        "length": f"{row.steps} steps of {row.batch} images, {row.epochs:.1f} epochs",
        "device": f"{row.device}, {processes}, seed {row.seed}",
        "run": f"{row.run}, from step {row.resumed_from}",
    }
    return "\n".join(f"{name:8} {text}" for name, text in lines.items())


def outcome(row: RunRow) -> str:
    """Write what a run gave: its losses on the way and, if it was evaluated, its quality."""
    from foveal.reporting.evaluation_text import evaluation_table

    parts = [_losses_table(row.losses)] if row.losses else []
    if row.evaluation is not None:
        parts.append(evaluation_table(row.evaluation))
    trust = " --trust-source" if ":" in row.network else ""
    see = f"foveal evaluate {row.run} --data {row.data}{trust}"
    return "\n\n".join([*parts, f"wrote {row.model}; see it with: {see}"])


def _losses_table(losses: Losses) -> str:
    from foveal.reporting.table import table

    names = [key for key in losses[-1] if key not in ("at", "step")]
    cells = [
        [str(row["at"]), str(row["step"]), *(f"{row[name]:.4g}" if name in row else "-" for name in names)]
        for row in losses
    ]
    return table(("at", "step", *names), cells)
