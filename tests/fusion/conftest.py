from __future__ import annotations

from importlib import import_module

import pytest

choice = import_module("foveal.ops.convolve.autotune")  # `foveal.ops.convolve` is the operation


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no measurement of this machine choose the algorithms."""
    found: dict[str, str] = {}
    monkeypatch.setattr(choice, "choices", lambda: found)
