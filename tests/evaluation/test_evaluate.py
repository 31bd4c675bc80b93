from __future__ import annotations

import json
from math import prod
from typing import Any

import pytest
import torch
from torch import nn

from conformance import HEADLESS
from foveal.cost import count_macs
from foveal.data.dataset import Dataset, open_dataset
from foveal.evaluation.evaluate import evaluate
from foveal.evaluation.metrics import Confusion
from foveal.evaluation.rows import EvalRow
from foveal.evaluation.tally import Entry
from foveal.methods import METHODS, Dense, SegBlocks
from foveal.methods.config import settings_of
from foveal.policies import create_policy
from foveal.reporting.rows import as_json
from samples import headless, tower, write_folder

SIZE = (64, 96)
TILE = 16
KEYS = {
    "method", "budget", "work", "miou", "iou", "pixel_accuracy", "macs", "ms", "images", "boundary_f",
}  # fmt: skip
"""Keys that other tools rely on."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(f"folder:{write_folder(tmp_path_factory.mktemp('scenes'), 3, SIZE)}")


@pytest.fixture
def network(data: Dataset, request: pytest.FixtureRequest) -> nn.Module:
    """Make a network that the method of a test runs; most of it comes after its exits."""
    given = getattr(request.node, "callspec", None)
    needs = METHODS[given.params.get("name", "dense")].needs if given is not None else None
    return HEADLESS.get(needs, tower)(len(data.classes))


def entry(
    network: nn.Module, method: str = "segblocks", budget: float = 0.5, policy: str = "entropy"
) -> Entry:
    kind = METHODS[method]
    known = settings_of(kind.Config)
    settings = {key: value for key, value in {"policy": policy, "tile": TILE}.items() if key in known}
    config = kind.Config(budget, **settings)
    return Entry(method, policy, budget, lambda target: kind.from_config(network, config))


def rows_of(network: nn.Module, data: Dataset, *entries: Entry, **options: Any) -> list[EvalRow]:
    return evaluate(Dense(network).eval(), data, list(entries), **{"timed": 0, **options})


def test_the_dense_row_comes_first_and_every_row_has_the_documented_keys(
    network: nn.Module, data: Dataset
) -> None:
    names = [name for name, kind in METHODS.items() if HEADLESS.get(kind.needs, tower) is tower]
    entries = [entry(network, name, budget) for name in names for budget in (0.4, 0.8)]
    rows = rows_of(network, data, *entries)
    assert [row.method for row in rows] == ["dense", *(e.method for e in entries)]
    assert [row.budget for row in rows] == [1.0, *(e.budget for e in entries)]
    for row in rows:
        assert set(as_json(row)) >= KEYS
        assert row.images == 3
        assert row.ms is None
        assert tuple(row.iou) == data.classes
    plain = as_json(rows)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@pytest.mark.parametrize("name", METHODS)
def test_work_stays_within_the_budget(name: str, network: nn.Module, data: Dataset) -> None:
    budgets = (0.3, 0.5, 0.8)
    dense, *rows = rows_of(network, data, *(entry(network, name, budget) for budget in budgets))
    assert dense.work == 1.0
    for budget, row in zip(budgets, rows, strict=True):
        limit = 1.0 if name == "dense" else budget + TILE**2 / prod(SIZE)
        assert row.work <= row.work_max <= limit + 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_the_whole_budget_agrees_with_dense_everywhere(name: str, network: nn.Module, data: Dataset) -> None:
    dense, row = rows_of(network, data, entry(network, name, budget=1.0))
    assert dense.agreement == row.agreement == 1.0
    for key in ("miou", "iou", "pixel_accuracy", "boundary_f", "work"):
        assert getattr(row, key) == getattr(dense, key)


def test_the_numbers_are_those_of_the_network_on_these_images(network: nn.Module, data: Dataset) -> None:
    confusion, macs, agreement = Confusion(len(data.classes)), [], []
    method = SegBlocks(network, create_policy("detail", 0.5, TILE)).eval()
    for n in range(3):
        image, target = data[n]
        labels = Dense(network)(image[None]).labels
        confusion.add(labels, target[None])
        macs.append(count_macs(lambda image=image: Dense(network)(image[None]).labels).total)
        with torch.no_grad():
            agreement.append((method(image[None]).labels == labels).double().mean().item())
    made = Entry("segblocks", "detail", 0.5, lambda target: method)
    dense, row = rows_of(network, data, made)
    assert dense.miou == pytest.approx(confusion.miou, abs=1e-4)
    assert dense.pixel_accuracy == pytest.approx(confusion.accuracy, abs=1e-4)
    assert dense.macs == round(sum(macs) / 3)
    assert row.agreement == pytest.approx(sum(agreement) / 3, abs=1e-5)


def test_only_the_oracle_gets_the_labels_and_it_gets_those_of_the_image(
    network: nn.Module, data: Dataset
) -> None:
    seen: list[torch.Tensor] = []

    def make(target: torch.Tensor) -> SegBlocks:
        seen.append(target)
        return SegBlocks(network, create_policy("oracle", 0.5, TILE, given=(network, target)))

    rows_of(network, data, Entry("segblocks", "oracle", 0.5, make))
    assert all(torch.equal(seen[n], data[n][1][None]) for n in range(3))


def test_dropout_and_norms_are_off_while_it_evaluates(data: Dataset) -> None:
    network = headless(len(data.classes), dropout=0.9).train()
    before = network[1].running_mean.clone()
    first, second = rows_of(network, data), rows_of(network.train(), data)
    assert first == second
    assert torch.equal(network[1].running_mean, before)


def test_images_are_limited_timed_and_reported(network: nn.Module, data: Dataset) -> None:
    calls: list[tuple[int, int]] = []
    rows = rows_of(network, data, entry(network), timed=1, limit=2, report=lambda *state: calls.append(state))
    assert calls == [(1, 2), (2, 2)]
    assert [row.images for row in rows] == [2, 2]
    assert all(row.ms > 0 for row in rows)


def test_labels_that_are_all_void_give_no_figures(network: nn.Module, data: Dataset) -> None:
    class Void:
        classes = data.classes

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return data[0][0], torch.full_like(data[0][1], 255)

    (row,) = evaluate(Dense(network).eval(), Void(), [], timed=0)  # type: ignore[arg-type]
    assert (row.miou, row.pixel_accuracy) == (None, None)
    assert json.loads(json.dumps(as_json(row), allow_nan=False))["miou"] is None
