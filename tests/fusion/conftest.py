from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from foveal.ops.convolve.autotune import AUTOTUNER


@pytest.fixture(autouse=True)
def unmeasured(tmp_path: Path) -> Iterator[None]:
    """Let no measurement of this machine choose the algorithms."""
    with AUTOTUNER.kept_in(tmp_path / "autotuner"):
        yield
