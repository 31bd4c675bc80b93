"""Adapted models in other processes: workers of a data loader, and processes of one's own."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import foveal
from foreign import Attending, Segmented, UNet, lively, picture
from foveal.adaptive import AdaptiveModel
from own_data import write_own

STARTS = pytest.mark.parametrize("start", [pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
"""Both send the model; a process that is spawned imports everything anew, so one test does it every time."""


def segment(model: AdaptiveModel, answers: Any) -> None:
    """Answer with the logits and with what ran."""
    out = model(picture(size=(128, 160)), budget=0.4)
    answers.put((out.logits.numpy(), model.engine.why_not))


@STARTS
def test_a_model_in_workers_of_a_data_loader(start: str) -> None:
    model = foveal.adapt(lively(UNet()))
    alone = torch.stack([Segmented(model)[k] for k in range(4)])
    loader = DataLoader(Segmented(model), batch_size=2, num_workers=2, multiprocessing_context=start)
    assert torch.equal(torch.cat(list(loader)), alone)


@pytest.mark.parametrize(
    ("network", "start"),
    [
        pytest.param(UNet(), "spawn", id="compiled-spawn"),
        pytest.param(UNet(), "forkserver", id="compiled-forkserver"),
        pytest.param(Attending(), "spawn", id="layers-spawn", marks=pytest.mark.slow),
        pytest.param(Attending(), "forkserver", id="layers-forkserver"),
    ],
)
def test_a_model_in_a_process_of_its_own(network: nn.Module, start: str) -> None:
    """The child loads the kernels and compiles the network by itself: addresses are not sent."""
    model = foveal.adapt(lively(network))
    context = multiprocessing.get_context(start)
    answers = context.Queue()
    process = context.Process(target=segment, args=(model, answers))
    process.start()
    logits, why_not = answers.get(timeout=120)
    process.join(30)
    assert process.exitcode == 0
    assert why_not == model.engine.why_not
    expected = model(picture(size=(128, 160)), budget=0.4).logits  # of other threads and algorithms
    torch.testing.assert_close(torch.as_tensor(logits), expected, rtol=0, atol=1e-4)


@STARTS
def test_a_data_set_in_workers(start: str, tmp_path: Path) -> None:
    dataset = foveal.open_dataset(f"folder:{write_own(tmp_path / 'data', 3, 'png')}", "test")
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=2,
        multiprocessing_context=start,  # type: ignore[arg-type]
    )
    found = list(loader)
    assert len(found) == len(dataset) > 0
    for given, expected in zip(found, (dataset[k] for k in range(len(dataset))), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))
