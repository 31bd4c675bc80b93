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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foveal.data.batches import Batches
from foveal.methods.segmenter import Segmenter

CHECKPOINT = "checkpoint.safetensors"
ADAM = ("exp_avg", "exp_avg_sq")


class Diverged(ArithmeticError):
    """The loss or the weights became infinite or NaN."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    steps: int
    learning_rate: float = 5e-4
    encoder_factor: float = 0.25
    weight_decay: float = 1e-2
    warmup: int = 200
    average: float = 0.999
    freeze_norms: bool = False
    bf16: bool = False
    seed: int = 0
    save_every: int = 250

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a cosine down to a hundredth."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * warm * (0.01 + 0.99 * cosine)


def train(
    method: Segmenter,
    batches: Batches,
    schedule: Schedule,
    run: Path,
    device: str = "cpu",
    report: Callable[[int, dict[str, float]], None] = lambda step, values: None,
) -> nn.Module:
    """Train a method from its current weights, or from the run's checkpoint if there is one.

    Args:
        method: What to train; its `loss` says how.
        batches: Batch of every step.
        schedule: Length and speed.
        run: Folder of the run; made if absent.
        device: Where to compute.
        report: Called after every step with the step and its values.

    Returns:
        The network with the moving average of the weights, in evaluation mode.

    Raises:
        Diverged: The loss is not finite, or the weights are not; the last checkpoint is kept.
    """
    run.mkdir(parents=True, exist_ok=True)
    method.to(device).train()
    network = method.network
    if schedule.freeze_norms:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    optimiser = _optimiser(network, schedule)
    average = {key: value.detach().clone() for key, value in network.state_dict().items()}
    first = _restore(run, network, average, optimiser)
    writer = _tensorboard(run)
    for step, (image, target) in _prefetch(batches, first, schedule.steps):
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step) * group["factor"]
        with torch.autocast(device, torch.bfloat16, enabled=schedule.bf16):
            losses = method.loss(image.to(device), target.to(device))
        total = sum(losses.values(), start=torch.zeros((), device=device))
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        if not math.isfinite(float(total.detach())):
            raise Diverged(f"step {step}: the loss is {float(total.detach())}; {run / CHECKPOINT} is kept")
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        _follow(average, network, min(schedule.average, (step + 1) / (step + 10)))
        values["learning_rate"] = schedule.rate(step)
        _log(run, writer, step, values)
        report(step, values)
        if (step + 1) % schedule.save_every == 0 or step + 1 == schedule.steps:
            if not all(bool(value.isfinite().all()) for value in network.parameters()):
                raise Diverged(f"step {step}: weights are not finite; {run / CHECKPOINT} is kept")
            _save(run, step + 1, network, average, optimiser)
    if writer is not None:
        writer.close()
    network.load_state_dict(average)
    method.eval()
    return network


def resumed_step(run: Path) -> int:
    """The step a run would continue with; 0 if it has no checkpoint."""
    path = run / CHECKPOINT
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            return int(json.loads(file.metadata()["state"])["step"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged, or no checkpoint of a run ({error})") from None


def _optimiser(network: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW; the encoder learns slower, norms and biases do not decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        factor = schedule.encoder_factor if name.startswith("encoder.") else 1.0
        decay = schedule.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "factor": factor, "weight_decay": decay, "lr": 0.0}
            for (factor, decay), members in groups.items()
        ]
    )


def _prefetch(batches: Batches, first: int, last: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Make the next batch while the present one is used."""
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(batches.__getitem__, first) if first < last else None
        for step in range(first, last):
            batch = coming.result()  # type: ignore[union-attr]
            coming = worker.submit(batches.__getitem__, step + 1) if step + 1 < last else None
            yield step, batch


@torch.no_grad()
def _follow(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            average[key].lerp_(value, 1 - decay)
        else:
            average[key].copy_(value)


def _save(
    run: Path, step: int, network: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> None:
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.items()}
    for name, parameter in network.named_parameters():
        state = optimiser.state.get(parameter, {})
        tensors |= {f"{moment}.{name}": state[moment] for moment in ADAM if moment in state}
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    part = run / (CHECKPOINT + ".part")
    save_file(tensors, part, {"state": json.dumps({"step": step})})
    part.replace(run / CHECKPOINT)


def _restore(
    run: Path, network: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> int:
    path = run / CHECKPOINT
    step = resumed_step(run)
    if step == 0:
        return 0
    with safe_open(path, "pt") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}
    state = {key.removeprefix("network."): value for key, value in stored.items() if key.startswith("n")}
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in network.state_dict().items()}:
        raise ValueError(f"{path} is a run of another network; give the recipe it was started with")
    network.load_state_dict(state)
    for key in average:
        average[key].copy_(stored[f"average.{key}"])
    for name, parameter in network.named_parameters():
        if f"{ADAM[0]}.{name}" in stored:
            moments: dict[str, Any] = {key: stored[f"{key}.{name}"].to(parameter.device) for key in ADAM}
            optimiser.state[parameter] = moments | {"step": torch.tensor(float(step))}
    _forget_after(run / "log.jsonl", step)
    return step


def _forget_after(log: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run does again."""
    if log.exists():
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(line for line in lines if json.loads(line)["step"] < step))


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(run / "tensorboard")


def _log(run: Path, writer: Any, step: int, values: dict[str, float]) -> None:
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **values}) + "\n")
    if writer is not None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
