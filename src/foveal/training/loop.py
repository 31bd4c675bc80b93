"""One training loop, read from top to bottom.

A run is a folder: `checkpoint.safetensors` (weights, moving average, optimiser moments and the step, in one
file that is replaced at once), `log.jsonl` and, if TensorBoard is installed, its events. What happens in a
step depends on the step and the seed alone, so a run that was killed at any moment and resumed ends with
the same weights as one that was not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as in_bytes
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from foveal.data.batches import Batches
from foveal.methods import TrainableSegmenter
from foveal.storage.atomic import write_atomically
from foveal.storage.reading import parse_json, shorten
from foveal.storage.tensors import read_tensors
from foveal.training.distributed import World
from foveal.training.log import History
from foveal.training.optim import (
    MOMENTS,
    Schedule,
    create_average,
    create_optimiser,
    resume_average,
    set_rate,
    trained,
)
from foveal.training.run import CHECKPOINT as CHECKPOINT  # the file that `train` goes on from
from foveal.training.run import alone


class Diverged(ValueError):
    """The loss or the weights became infinite or NaN."""


def train(
    method: TrainableSegmenter,
    batches: Batches,
    schedule: Schedule,
    run: Path,
    device: str = "cpu",
    report: Callable[[int, dict[str, float]], None] = lambda step, values: None,
) -> nn.Module:
    """Train a method from its current weights, or from the run's checkpoint if there is one.

    Processes that were joined (see `foveal.training.distributed`) share every batch; the first one writes.

    Args:
        method: What to train; its `loss` says how. Terms without a gradient are only logged.
        batches: Batch of every step.
        schedule: Length and speed.
        run: Folder of the run; made if absent. Nothing else may train in it at the same time.
        device: Where to compute.
        report: Called after every step with the step and its values.

    Returns:
        The network with the moving average of the weights, for inference; the whole method has it.

    Raises:
        Diverged: The loss is not finite, or the weights are not; the last checkpoint is kept.
        ValueError: Nothing can be trained, the checkpoint is of another run, a batch cannot be shared, or
            another training is in the folder.
        OSError: Something cannot be read or written; the last checkpoint is kept.
    """
    with alone(run):
        try:
            return _train(method, batches, schedule, run, device, report)
        except OSError as error:
            raise OSError(f"{error}; {_kept(run)}") from None


def _train(
    method: TrainableSegmenter,
    batches: Batches,
    schedule: Schedule,
    run: Path,
    device: str,
    report: Callable[[int, dict[str, float]], None],
) -> nn.Module:
    """Train in a folder that nobody else has."""
    world = World.current()
    method.to(device).train()
    _freeze_norms(method.network, schedule.freeze_norms)
    optimiser = create_optimiser(method, schedule)
    world.broadcast_weights(method)
    average = create_average(method, schedule.average)
    first = _restore(run, method, average, optimiser)
    history = History(run, first) if world.first else None
    for step, (image, target) in _prefetch(world.share(batches), first, schedule.steps):
        torch.manual_seed(world.seed(schedule.seed * 1_000_003 + step))
        set_rate(optimiser, schedule.rate(step))
        with world.as_one(method), torch.autocast(torch.device(device).type, torch.bfloat16, schedule.bf16):
            losses = method.loss(image.to(device), target.to(device))
        total = _total(losses)
        values = world.average({"total": float(total.detach())} | _numbers(losses), device)
        if not math.isfinite(values.pop("total")):
            raise Diverged(_say(run, step, f"the loss is {_worst(values)}"))
        optimiser.zero_grad()
        total.backward()
        world.average_gradients(list(trained(method).values()))
        optimiser.step()
        world.average_statistics(method)
        average.update_parameters(method)
        values["learning_rate"] = schedule.rate(step)
        if history is not None:
            history.add(step, values)
            report(step, values)
        if (step + 1) % schedule.save_every == 0 or step + 1 == schedule.steps:
            _save(run, step + 1, _state(method, average, optimiser), world.first)
    if history is not None:
        history.close()
    return _finish(method, average)


def _finish(method: TrainableSegmenter, average: AveragedModel) -> nn.Module:
    """Give the method the averaged weights, for inference."""
    method.load_state_dict(average.module.state_dict())
    method.eval()
    return method.network


def resumed_step(run: Path) -> int:
    """The step a run would continue with; 0 if it has no checkpoint."""
    path = run / CHECKPOINT
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            step = parse_json(file.metadata()["state"], "its state", "JSON")["step"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: damaged, or no checkpoint of a run ({shorten(error)}); delete it, or give another run"
        ) from None
    if type(step) is not int or step < 1:
        raise ValueError(
            f"{path}: damaged, or no checkpoint of a run (its step is {shorten(step, 20)}); delete it, or "
            "give another run"
        )
    return step


def _freeze_norms(network: nn.Module, wanted: bool) -> None:
    for module in network.modules():
        if wanted and isinstance(module, nn.BatchNorm2d):
            module.eval()


def _prefetch(
    batch: Callable[[int], tuple[Tensor, Tensor]], first: int, last: int
) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Make the next batch while the present one is used."""
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(batch, first) if first < last else None
        for step in range(first, last):
            present = coming.result()  # type: ignore[union-attr]
            coming = worker.submit(batch, step + 1) if step + 1 < last else None
            yield step, present


def _total(losses: dict[str, Tensor]) -> Tensor:
    """Add up the terms that carry a gradient; the others are there to be logged.

    Raises:
        ValueError: None does.
    """
    terms = [loss for loss in losses.values() if loss.requires_grad]
    if not terms:
        raise ValueError(
            f"no term of the loss ({', '.join(losses)}) carries a gradient; nothing can be learned"
        )
    return sum(terms, start=torch.zeros((), device=terms[0].device))


def _numbers(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _worst(values: dict[str, float]) -> str:
    """Name the terms that are not finite."""
    bad = [f"{value} ({name})" for name, value in values.items() if not math.isfinite(value)]
    return ", ".join(bad) or "infinite"


def _say(run: Path, step: int, what: str) -> str:
    """Say what went wrong, what is left, and what to do."""
    return f"step {step}: {what}; {_kept(run)}; give a lower train.learning_rate or a longer train.warmup"


def _kept(run: Path) -> str:
    """Say what is left to go on from."""
    kept = resumed_step(run)
    return f"{run / CHECKPOINT} of step {kept} is kept" if kept else "no checkpoint was written before"


def _state(method: nn.Module, average: AveragedModel, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Collect weights, `average.` and moments, all by the names of the method's state."""
    tensors = dict(method.state_dict())
    tensors |= {f"average.{key}": value for key, value in average.module.state_dict().items()}
    for name, parameter in trained(method).items():
        state = optimiser.state.get(parameter, {})
        tensors |= {f"{moment}.{name}": state[moment] for moment in MOMENTS if moment in state}
    return tensors


def _save(run: Path, step: int, tensors: dict[str, Tensor], writes: bool) -> None:
    """Replace the checkpoint, if all is finite.

    Raises:
        Diverged: Something is not.
    """
    bad = [key for key, value in tensors.items() if not bool(value.isfinite().all())]
    if bad:
        raise Diverged(_say(run, step - 1, f"{len(bad)} weights or moments are not finite, such as {bad[0]}"))
    if not writes:
        return
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    write_atomically(run / CHECKPOINT, in_bytes(tensors, {"state": json.dumps({"step": step})}))


def _restore(run: Path, method: nn.Module, average: AveragedModel, optimiser: torch.optim.Optimizer) -> int:
    """Take over weights, average and moments of the run's checkpoint, and return its step."""
    path = run / CHECKPOINT
    step = resumed_step(run)
    if step == 0:
        return 0
    stored, _ = read_tensors(path, "checkpoint of a run")
    wanted = _state(method, average, optimiser)
    state = {key for key in stored if not key.startswith((*MOMENTS, "average."))}
    if state != set(method.state_dict()) or any(
        key not in stored or stored[key].shape != value.shape for key, value in wanted.items()
    ):
        raise ValueError(f"{path} is a run of another network or method; give the recipe it was started with")
    method.load_state_dict({key: stored[key] for key in method.state_dict()})
    average.module.load_state_dict({key: stored[f"average.{key}"] for key in method.state_dict()})
    resume_average(average, step)
    for name, parameter in trained(method).items():
        moments = _moments(stored, name, parameter, path)
        if moments:
            # The count of steps stays on the processor, where the optimiser makes it.
            optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
            }
    return step


def _moments(stored: dict[str, Tensor], name: str, parameter: Tensor, path: Path) -> dict[str, Tensor]:
    """Return what the optimiser knew of a parameter; nothing if it had no gradient yet.

    Raises:
        ValueError: Some of it is missing, or it is of another parameter.
    """
    found = {key: stored[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in stored}
    forms = {(key, value.shape, value.dtype) for key, value in found.items() if key != "step"}
    step = found.get("step", torch.zeros(()))
    whole = forms == {(key, parameter.shape, parameter.dtype) for key in MOMENTS if key != "step"}
    if found and not (whole and step.is_floating_point() and step.ndim == 0 and step >= 1):
        raise ValueError(
            f"{path}: damaged, or no checkpoint of this run (what the optimiser knew of '{name}' does not "
            "fit it); delete it, or give another run"
        )
    return found
