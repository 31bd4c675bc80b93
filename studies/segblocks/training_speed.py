"""How fast training is on tiles: milliseconds a step by share, and the loss over steps and time of runs.

Source: Fig. 11 of SegBlocks (Verelst and Tuytelaars, TPAMI 2022).
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from foveal.cost import alternate
from foveal.methods import TrainableSegmenter
from foveal.objectives.segmentation import cross_entropy
from foveal.tiles import run_dense, split
from studies.segblocks.residual_block import random_blocks

SOURCE = "SegBlocks (TPAMI 2022), Fig. 11 and section 4.4, in words: the figure has no numbers"
PAPER: list[dict[str, Any]] = [
    {
        "says": "reinforcement learning of the policy does not significantly change how many training steps "
        "are needed",
        "source": SOURCE,
    }
]
SHARES = 0.2, 0.4, 0.6, 0.8, 1.0
TERMS = "segmentation", "mixed"
"""Terms of a log that are the loss of what is used in the end; the first that is there is taken."""


def training_speed(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    shares: Sequence[float] = SHARES,
    block: int = 128,
    repeat: int = 5,
    methods: Mapping[str, TrainableSegmenter] | None = None,
) -> list[dict[str, Any]]:
    """Time a training step, dense and on tiles of new random blocks every step, all in turns.

    A step is forward, cross entropy, backward and AdamW, with batch statistics. Weights are trained in
    copies; the given ones stay as they are.

    Args:
        model: Network from images [N, 3, H, W] to logits.
        batch: Images [N, 3, H, W] in 0..1 and labels [N, H, W].
        shares: Shares of the blocks at full resolution, the others at half.
        block: Side of a block [px], two tiles.
        repeat: Timed rounds.
        methods: Methods by name whose own loss is timed, too, such as one with a policy that learns.

    Returns:
        Rows with the keys run ("dense", "segblocks" or a method's name), share and work (None if a method
        decides), ms, p95, speedup (over dense).
    """
    networks = {"dense": copy.deepcopy(model)}
    networks |= {f"{share:g}": _ready(copy.deepcopy(model)) for share in shares}
    runs: dict[str, Callable[[], None]] = {}
    runs["dense"] = partial(_step, *_trained(networks["dense"]), _dense(networks["dense"], batch))
    for share in shares:
        network = networks[f"{share:g}"]
        runs[f"{share:g}"] = partial(_step, *_trained(network), _mixed(network, batch, block, share))
    for name, method in (methods or {}).items():
        twin = copy.deepcopy(method)
        runs[f"method {name}"] = partial(_step, *_trained(twin), partial(_own, twin, batch))
    times = alternate(runs, repeat, warmup=1)
    rows = []
    for name, timing in times.items():
        row: dict[str, Any] = {"run": name.removeprefix("method "), "share": None, "work": None}
        if name == "dense":
            row |= {"share": 1.0, "work": 1.0}
        elif name in networks:
            plan = random_blocks(_size(batch), block, float(name))
            row = {"run": "segblocks", "share": round(plan.share(0), 4), "work": round(float(plan.work), 4)}
        speedup = times["dense"].median / timing.median
        rows.append(
            row | {"ms": round(timing.median, 2), "p95": round(timing.p95, 2), "speedup": round(speedup, 4)}
        )
    return rows


def _size(batch: tuple[Tensor, Tensor]) -> tuple[int, int]:
    return batch[0].shape[2], batch[0].shape[3]


def _ready(model: nn.Module) -> nn.Module:
    """Let the modules that look at the whole map see it on tiles, too."""
    for name in getattr(model, "dense_modules", ()):
        run_dense(model.get_submodule(name))
    return model


def _trained(module: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a module in training, with an optimiser that hardly moves it."""
    return module.train(), torch.optim.AdamW((p for p in module.parameters() if p.requires_grad), 1e-6)


def _step(module: nn.Module, optimiser: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    with torch.inference_mode(False), torch.enable_grad():  # timing runs without gradients
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()


def _dense(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Callable[[], Tensor]:
    return lambda: cross_entropy(network(batch[0]), batch[1].long())


def _mixed(
    network: nn.Module, batch: tuple[Tensor, Tensor], block: int, share: float
) -> Callable[[], Tensor]:
    """Return the loss on tiles; every call draws other blocks, so tables are built anew as in training."""
    draws = itertools.count()
    image, target = batch

    def loss() -> Tensor:
        plan = random_blocks(_size(batch), block, share, len(image), next(draws))
        return cross_entropy(network(split(image, plan)).dense(), target.long())

    return loss


def _own(method: TrainableSegmenter, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Sum the terms of a method's loss; those without a gradient are there to be logged."""
    terms = [term for term in method.loss(batch[0], batch[1].long()).values() if term.requires_grad]
    return torch.stack(terms).sum()


def training_curves(
    runs: Mapping[str, Path], points: int = 100, ms: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Read how the loss of runs fell: means over equal stretches of steps.

    Args:
        runs: Folder with a `log.jsonl` by the name of the run.
        points: Most rows a run.
        ms: Time of a step by the name of the run [ms], if it is known.

    Returns:
        Rows with the keys run, step (the last of the stretch, from 1), loss, seconds (None if not known).

    Raises:
        ValueError: A run has no log, or none of its terms is known.
    """
    rows = []
    for name, folder in runs.items():
        losses = list(_losses(folder / "log.jsonl"))
        stretch = -(-len(losses) // points) or 1
        for first in range(0, len(losses), stretch):
            part = losses[first : first + stretch]
            step = part[-1][0] + 1
            seconds = round(step * ms[name] / 1000, 3) if ms and name in ms else None
            loss = round(fmean(value for _, value in part), 5)
            rows.append({"run": name, "step": step, "loss": loss, "seconds": seconds})
    return rows


def _losses(log: Path) -> Iterator[tuple[int, float]]:
    if not log.is_file():
        raise ValueError(f"{log} does not exist; give the folder of a run, as `foveal train` writes it")
    for line in log.read_text().splitlines():
        values = json.loads(line)
        found = [values[term] for term in TERMS if term in values]
        if not found:
            raise ValueError(f"{log} has the terms {', '.join(values)}; one of {', '.join(TERMS)} is needed")
        yield int(values["step"]), float(found[0])


def steps_needed(rows: list[dict[str, Any]], loss: float) -> list[dict[str, Any]]:
    """Say after how many steps the curve of every run reaches a loss; None if it never does."""
    needed: dict[str, int | None] = {row["run"]: None for row in rows}
    for row in rows:
        if needed[row["run"]] is None and row["loss"] <= loss:
            needed[row["run"]] = row["step"]
    return [{"run": run, "loss": loss, "steps": steps} for run, steps in needed.items()]


def draw_training_speed(rows: list[dict[str, Any]], axes: Any) -> None:
    """Draw the time of a step over the share of the blocks at full resolution, on matplotlib axes."""
    whole = [row for row in rows if row["share"] is None or row["run"] == "dense"]
    for colour, row in enumerate(whole, start=1):
        axes.axhline(row["ms"], linestyle="--", color=f"C{colour}", label=row["run"])
    found = sorted((row["share"], row["ms"]) for row in rows if row["run"] == "segblocks")
    axes.plot([share for share, _ in found], [ms for _, ms in found], "o-", label="segblocks")
    axes.set_xlabel("share of the blocks at full resolution")
    axes.set_ylabel("a training step [ms]")
    axes.set_ylim(bottom=0)
    axes.legend()


def draw_training_curves(rows: list[dict[str, Any]], axes: Any, over: str = "step") -> None:
    """Draw the loss over steps, or over time with `over="seconds"`, on matplotlib axes."""
    for run in dict.fromkeys(row["run"] for row in rows):
        points = [(row[over], row["loss"]) for row in rows if row["run"] == run and row[over] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=run)
    axes.set_xlabel("training step" if over == "step" else "time in training steps [s]")
    axes.set_ylabel("loss")
    axes.legend()
