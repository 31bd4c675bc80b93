"""Peak memory of one run by batch size, dense and under policies, every one in a process of its own.

Source: table III of SegBlocks (Verelst and Tuytelaars, TPAMI 2022), there of PyTorch's allocator on a GPU.
Here it is resident memory: what a run adds to the weights, the image and whatever else was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foveal.benchmark.memory import peak_mb
from foveal.fusion import faster
from foveal.kernels.abi import plain
from foveal.methods import Dense, SegBlocks
from foveal.methods.base import check_image
from foveal.policies import Policy

SOURCE = "SegBlocks (TPAMI 2022), table III: RN18, 1024x2048, PyTorch's peak on a GPU"
BATCHES = 1, 2, 4
PAPER: list[dict[str, Any]] = [
    {"run": run, "batch": batch, "peak_mb": peak, "source": SOURCE}
    for run, peaks in (
        ("dense", (480, 880, 1681)),
        ("segblocks, share 0.4", (571, 901, 1586)),
        ("segblocks, share 0.2", (340, 721, 940)),
    )
    for batch, peak in zip(BATCHES, peaks, strict=True)
]
ENGINES = "pytorch", "native"
"""Plain PyTorch with a border pass, and the fused network in C."""


def memory(
    model: nn.Module,
    images: Tensor,
    policies: Mapping[str, Policy],
    batches: Sequence[int] = BATCHES,
    engines: Sequence[str] = ENGINES,
) -> list[dict[str, Any]]:
    """Measure the peak of the dense network and of every policy, by batch size and engine.

    Args:
        model: Network from images [N, 3, H, W] to logits; it and the policies are pickled.
        images: [N, 3, H, W] in 0..1; a batch takes the first ones.
        policies: Policy by the name of its rows; one a budget.
        batches: Numbers of images.
        engines: "pytorch", "native", or both.

    Returns:
        Rows with the keys engine, run ("dense" or the policy's name), batch, work, peak_mb.

    Raises:
        ValueError: There are fewer images than the largest batch takes, or an engine is unknown.
    """
    check_image(images)
    if len(images) < max(batches):
        raise ValueError(
            f"a batch of {max(batches)} needs as many images, given {len(images)}; give more images"
        )
    runs: dict[str, Policy | None] = {"dense": None, **policies}
    rows = []
    for batch in batches:
        image = images[:batch].contiguous(memory_format=torch.channels_last)
        works = {run: _work(model, policy, image) for run, policy in runs.items()}
        for engine in engines:
            for run, policy in runs.items():
                # Freed memory goes back to the system: the peak is then what was in use, not what was kept.
                peak = peak_mb(fresh, model, policy, image, check_engine(engine), keep=False)
                rows.append(
                    {
                        "engine": engine,
                        "run": run,
                        "batch": batch,
                        "work": works[run],
                        "peak_mb": round(peak, 1),
                    }
                )
    return rows


def check_engine(engine: str) -> str:
    """Return the name of an engine.

    Raises:
        ValueError: There is none of that name.
    """
    if engine not in ENGINES:
        raise ValueError(f"there is no engine '{engine}'; give one of {', '.join(ENGINES)}")
    return engine


def fresh(model: nn.Module, policy: Policy | None, image: Tensor, engine: str) -> Callable[[], Tensor]:
    """Return one run up to the labels; called in the process that is measured."""
    native = engine == "native"
    network = faster(model.eval()) if native else model.eval()
    method = (Dense(network) if policy is None else SegBlocks(network, policy)).eval()
    image = image.contiguous(memory_format=torch.channels_last)

    def run() -> Tensor:
        if native:
            return method(image).labels
        with plain():
            return method(image).labels

    return run


@torch.inference_mode()
def _work(model: nn.Module, policy: Policy | None, image: Tensor) -> float:
    """Return the share of the dense work that a policy takes."""
    if policy is None:
        return 1.0
    return round(float(SegBlocks(model, policy).eval()(image).trace.work.mean()), 4)


def draw_memory(rows: list[dict[str, Any]], axes: Any) -> None:
    """Draw peak memory over the size of the batch, relative to the dense network of one image."""
    found = [*rows, *({"engine": "paper"} | row for row in PAPER)]
    engines = list(dict.fromkeys(row["engine"] for row in found))
    for engine, style in zip(engines, ("-", "-.", ":"), strict=False):
        mine = [row for row in found if row["engine"] == engine]
        unit = next(row["peak_mb"] for row in mine if row["run"] == "dense")
        for colour, run in enumerate(dict.fromkeys(row["run"] for row in mine)):
            points = [(row["batch"], row["peak_mb"] / unit) for row in mine if row["run"] == run]
            axes.plot(
                *zip(*points, strict=True), style, marker="o", color=f"C{colour}", label=f"{engine}: {run}"
            )
    axes.set_xticks(sorted({row["batch"] for row in found}))
    axes.set_xlabel("images in a batch")
    axes.set_ylabel("peak memory, dense with the smallest batch = 1")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
