"""The name of trained numbers: of their values alone, read once, and read again when they change."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from commands import small_model
from foveal.calibration.configure import configure
from foveal.calibration.profile import PROFILES
from foveal.hub import fingerprint as module
from foveal.hub.checkpoint import load_model
from foveal.hub.fingerprint import fingerprint
from foveal.storage.store import Store
from samples import nano


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the number of tensors of every reading of a network."""
    found: list[int] = []
    digest = module.digest

    def count(state: dict[str, Tensor]) -> str:
        found.append(len(state))
        return digest(state)

    monkeypatch.setattr(module, "digest", count)
    return found


def test_equal_numbers_have_one_fingerprint(tmp_path: Path) -> None:
    path = small_model(tmp_path)
    first, second = load_model(path).network, load_model(path).network
    assert fingerprint(first) == fingerprint(second)
    with torch.no_grad():
        next(second.parameters())[0].add_(0.5)
    assert fingerprint(first) != fingerprint(second)


def test_a_network_is_read_once(reads: list[int]) -> None:
    network = nano()
    assert fingerprint(network) == fingerprint(network) == fingerprint(network.train())
    assert len(reads) == 1
    fingerprint(nano())
    assert len(reads) == 2


def test_settings_of_a_model_are_chosen_without_reading_it_again(tmp_path: Path, reads: list[int]) -> None:
    model = load_model(small_model(tmp_path))
    Store(PROFILES.kind, PROFILES.version).place.mkdir(parents=True, exist_ok=True)
    for budget in (0.3, 0.4, 0.5):
        configure(model, "coarse_to_fine", budget, {})
    assert len(reads) == 1


def step(network: nn.Module) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), 0.1)
    network(torch.rand(2, 3, 64, 64)).sum().backward()
    optimiser.step()


def replace(network: nn.Module) -> None:
    layer = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    layer.weight = nn.Parameter(layer.weight.detach() + 1)


def write(network: nn.Module) -> None:
    with torch.no_grad():
        next(network.parameters()).flatten()[-1] += 1


def load(network: nn.Module) -> None:
    network.load_state_dict({key: value + 1 for key, value in network.state_dict().items()})


def assign(network: nn.Module) -> None:
    network.load_state_dict({key: value + 1 for key, value in network.state_dict().items()}, assign=True)


def point_elsewhere(network: nn.Module) -> None:
    parameter = next(network.parameters())
    parameter.data = parameter.data + 1


@pytest.mark.parametrize(
    "change",
    [
        step,
        replace,
        write,
        load,
        assign,
        point_elsewhere,
        lambda net: net.half(),
        lambda net: net.half().float(),
    ],
    ids=["step", "replace", "write", "load", "assign", "data", "half", "rounded"],
)
def test_changed_numbers_have_another_fingerprint(change: Callable[[nn.Module], object]) -> None:
    network = nano()
    before = fingerprint(network)
    change(network)
    after = fingerprint(network)
    assert after != before
    assert after == module.digest(network.state_dict())


def test_statistics_of_norms_count(reads: list[int]) -> None:
    network = nano().train()
    before = fingerprint(network)
    network(torch.rand(2, 3, 64, 64))
    assert fingerprint(network) != before and len(reads) == 2


def test_tensors_that_do_not_count_writes_are_read_every_time(reads: list[int]) -> None:
    with torch.inference_mode():
        network = nano()
        before = fingerprint(network)
        next(network.parameters()).add_(1)
        assert fingerprint(network) != before
    assert len(reads) == 2


def test_neither_the_network_nor_its_memory_is_kept() -> None:
    network = nano()
    fingerprint(network)
    gone = weakref.ref(network), weakref.ref(next(network.parameters()))
    del network
    gc.collect()
    assert gone[0]() is None and gone[1]() is None
