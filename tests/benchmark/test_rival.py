from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foveal.benchmark.rival import openvino_rival
from foveal.benchmark.runtimes import RUNTIMES, Backend, Case, Runtime
from foveal.benchmark.runtimes.case import Variant
from foveal.ops import classify
from samples import nano

IMAGE = torch.rand(1, 3, 64, 96)


def runs(monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor], *packages: str) -> None:
    """Put another runtime in OpenVINO's place."""
    variant = Variant(lambda case: Runtime(lambda image: change(case.network(image))), packages)
    monkeypatch.setitem(RUNTIMES, "openvino", Backend("OpenVINO", {"f32": variant}))


def test_labels_are_the_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs(monkeypatch, lambda logits: logits)
    network = nano()
    labeller, why_not = openvino_rival(network, IMAGE, tmp_path)
    assert labeller is not None and not why_not
    with torch.no_grad():
        expected = classify(network(IMAGE).contiguous(), (64, 96))
    assert (labeller.run(labeller.lay(IMAGE)) == expected).float().mean() > 0.999


@pytest.mark.parametrize(
    ("change", "packages", "why"),
    [
        (lambda logits: logits, ("no_such_package",), "not installed: no_such_package"),
        (lambda logits: logits + 1, (), "its logits differ from PyTorch's by"),
        (lambda logits: logits * float("nan"), (), "its logits differ from PyTorch's by nan"),
        (lambda logits: 1 / 0, (), "division by zero"),
    ],
)
def test_it_says_why_it_is_not_there(
    change: Callable[[Tensor], Tensor],
    packages: tuple[str, ...],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    runs(monkeypatch, change, *packages)
    found = openvino_rival(nano(), IMAGE, tmp_path)
    assert found.labeller is None and why in found.why_not


def test_what_cannot_be_prepared_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(case: Case) -> Runtime:
        raise RuntimeError("no such layer")

    monkeypatch.setitem(RUNTIMES, "openvino", Backend("OpenVINO", {"f32": Variant(fail, ())}))
    assert "no such layer" in openvino_rival(nano(), IMAGE, tmp_path).why_not
