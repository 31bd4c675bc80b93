from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commands import SMALL_BENCH, Result, run, small_model


@pytest.fixture(scope="session")
def bench_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def command(bench_model: Path) -> Callable[..., Result]:
    """Run `foveal bench` on a small network and image."""

    def bench(*arguments: object, small: tuple[object, ...] = SMALL_BENCH) -> Result:
        return run("bench", "--model", bench_model, *small, *arguments)

    return bench
