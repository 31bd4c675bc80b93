"""Weights files that do not fit are refused, and run no code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from foveal.models.nano import NanoEncoder
from foveal.models.weights import WeightsError, load_encoder, read_state


class Malice:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("malice",)


def contents(tmp_path: Path) -> dict[str, bytes]:
    torch.save({"weight": torch.zeros(100)}, tmp_path / "good.pt")
    return {
        "empty": b"",
        "text": b"not weights at all",
        "zip": (tmp_path / "good.pt").read_bytes()[:200],
        "pickle": pickle.dumps({"weight": [1, 2]}, 2),
        "malice": pickle.dumps(Malice(), 2),
    }


@pytest.mark.parametrize("kind", ["empty", "text", "zip", "pickle", "malice"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".bin"])
def test_damaged_files_are_refused_in_one_line_and_run_no_code(
    kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(contents(tmp_path)[kind])
    with pytest.raises(WeightsError) as error:
        load_encoder(NanoEncoder(), path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "malice").exists()


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"epoch": 3}, {0: torch.zeros(3)}, None])
def test_files_without_a_state_dict_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"weights\.pt: (holds no state dict|no key fits)"):
        load_encoder(NanoEncoder(), tmp_path / "weights.pt")


def test_files_that_are_not_there_or_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pt", tmp_path):
        with pytest.raises(WeightsError, match="no such weights file"):
            read_state(path)


def test_weights_of_something_else_are_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    encoder = NanoEncoder()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"no key fits the encoder; it has keys such as 'stem\.0"):
        load_encoder(encoder, tmp_path / "other.pt")
    state = dict(before, **{"stem.0.0.weight": torch.zeros(16, 3, 5, 5)})
    torch.save(state, tmp_path / "wide.pt")
    message = r"'stem\.0\.0\.weight' is \(16, 3, 5, 5\), the encoder needs \(16, 3, 3, 3\)"
    with pytest.raises(WeightsError, match=message):
        load_encoder(encoder, tmp_path / "wide.pt")
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
