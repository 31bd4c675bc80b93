from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from foveal.kernels import processor as cpu


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Let nothing that was read before or here be kept."""
    cpu._field.cache_clear()
    yield
    cpu._field.cache_clear()


@pytest.mark.parametrize("key", ["flags", "Features"])
def test_name_and_features_are_those_of_the_first_processor(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nmodel name\t: Quick 9000\n{key}\t\t: fpu avx2\n\nmodel name\t: Other\n")
    monkeypatch.setattr(cpu, "CPU_INFO", info)
    assert cpu.processor() == "Quick 9000" and cpu.features() == {"fpu", "avx2"}


def test_where_the_system_tells_nothing_the_architecture_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "none")
    assert cpu.processor() == (platform.processor() or platform.machine()) and not cpu.features()
