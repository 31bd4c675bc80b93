from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, settings

import foveal
from foveal.ops.convolve.autotune import AUTOTUNER
from remembered import Remembered

LONGEST = (
    *("wheel/test_wheel.py", "test_known_networks.py", "cli/test_any_model.py", "kernels/test_build.py"),
    *("training/test_train_command.py", "adaptive/test_example.py", "laws/test_laws_at_a_scale.py"),
    *(
        "cli/test_full_disk.py",
        "cli/test_kills.py",
        "test_own_data_example.py",
        "program/test_embedding_page.py",
    ),
)
"""Files that take longest: they are begun first, so that no process waits for another one at the end."""

torch.set_num_threads(1)
settings.register_profile(
    "foveal",
    deadline=None,
    derandomize=True,
    max_examples=25,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
    ],
)
settings.load_profile("foveal")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first; each runs in one process (`--dist loadfile`)."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: str(item.path.relative_to(tests)) not in LONGEST)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start every test from the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what was measured on this machine out of the tests, and what they measure out of its cache."""
    monkeypatch.setattr("foveal.storage.store.folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("foveal.calibration.latency.tuning", nullcontext)
    return tmp_path / "cache" / "cost"


@pytest.fixture(autouse=True)
def no_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests from pausing a training that runs on this machine."""
    monkeypatch.setattr("foveal.benchmark.machine.QUEUE", tmp_path / "queue")


@pytest.fixture(autouse=True, scope="session")
def no_choices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what was measured on this machine out of the tests, and what they measure out of its cache."""
    with AUTOTUNER.kept_in(tmp_path_factory.mktemp("choices")):
        yield


@pytest.fixture(autouse=True, scope="session")
def judged_once() -> Iterator[None]:
    """Judge a network that several tests adapt once in a process; tests of the judge call it themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foveal.adaptive.survey.check", Remembered())
        yield


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """Give torchvision, also beside a torch that its operators were not built for."""
    try:
        return foveal.import_library("torchvision")
    except ImportError:
        pytest.skip("torchvision is not installed")


@pytest.fixture(scope="session")
def timm(torchvision: ModuleType) -> ModuleType:
    """Give timm, which imports torchvision."""
    return pytest.importorskip("timm")
