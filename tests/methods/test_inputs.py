"""What is given instead of images: the right answer, or a ValueError that says what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import foveal
from foreign import UNet
from foveal.adaptive import AdaptiveModel
from foveal.methods import CoarseToFine, Dense
from foveal.storage import said
from samples import nano

IMAGE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
NO_IMAGES: dict[str, Any] = {
    "None": None,
    "number": 3,
    "text": "photo.png",
    "array": IMAGE.numpy(),
    "lists": IMAGE.tolist(),
    "dict": {"image": IMAGE},
    "generator": (image for image in IMAGE),
    "meta": IMAGE.to("meta"),
    "sparse": IMAGE.to_sparse(),
    "nested": torch.nested.nested_tensor([IMAGE[0], IMAGE[0]], layout=torch.jagged),
    "mkldnn": IMAGE.to_mkldnn(),
    "batch 0": IMAGE[:0],
    "eight bits": IMAGE.to(torch.float8_e4m3fn),
    "complex": IMAGE.to(torch.complex64),
    "bool": IMAGE > 0.5,
}


@pytest.fixture(scope="module")
def model() -> AdaptiveModel:
    return foveal.adapt(UNet())


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_is_no_image(kind: str, model: AdaptiveModel) -> None:
    given = NO_IMAGES[kind]
    for run in (
        lambda: model(given, budget=0.5),
        lambda: Dense(nano())(given),
        lambda: CoarseToFine(nano())(given),
    ):
        with pytest.raises(ValueError, match="give"):
            run()


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(kind: torch.dtype, model: AdaptiveModel) -> None:
    given = IMAGE.to(kind)
    assert torch.equal(model(given, budget=0.5).labels, model(given.float(), budget=0.5).labels)
    with pytest.raises(ValueError, match=r"give torch\.float32, as the weights are"):
        Dense(nano())(given)


@pytest.mark.parametrize(
    "options",
    [
        {"budget": "0.4"},
        {"budget": 0.5, "mask": 3},
        {"budget": 0.5, "mask_share": "a", "mask": torch.ones(1, 64, 96, dtype=torch.bool)},
    ],
)
def test_other_arguments(options: dict[str, Any], model: AdaptiveModel) -> None:
    with pytest.raises(ValueError, match="give a"):
        model(IMAGE, **options)


def test_arguments_of_other_types(model: AdaptiveModel) -> None:
    for run in (
        lambda: model([IMAGE[0]], budget=0.5, mask=3),
        lambda: model.calibrate(None),
        lambda: CoarseToFine(nano(), budget="a"),
        lambda: CoarseToFine(nano(), tile="a"),
        lambda: CoarseToFine(nano(), tile=10**9),
        lambda: CoarseToFine(nano(), coarse_level=99),
        lambda: foveal.adapt(UNet(), tile="a"),
        lambda: foveal.adapt(UNet(), tile=10**9),
        lambda: foveal.adapt(UNet(), coarse_level="a"),
        lambda: foveal.adapt(UNet(), classes=3),
    ):
        with pytest.raises(ValueError, match="give"):
            run()


def test_numbers_beyond_0_to_1_are_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(said, "SAID", set())
    method = Dense(nano())
    with pytest.warns(RuntimeWarning, match=r"numbers from -1 to 2; networks of Foveal take 0\.\.1") as seen:
        for _ in range(3):
            method(torch.full_like(IMAGE, -1.0).index_fill(3, torch.tensor([0]), 2.0))
    assert len(seen) == 1


def test_numbers_in_0_to_1_are_not_warned_of(recwarn: pytest.WarningsRecorder, monkeypatch: Any) -> None:
    monkeypatch.setattr(said, "SAID", set())
    Dense(nano())(IMAGE)
    assert [w for w in recwarn if "hold numbers" in str(w.message)] == []
