"""Law 9: an image of any size comes back at its size; bad input is refused in one clear sentence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from conformance import CLASSES, NAMES, answer, make
from foveal.geometry.plan import grid
from foveal.methods import AdaptiveSegmenter
from samples import error_of


@pytest.mark.parametrize("size", [(1, 1), (1, 97), (97, 1), (2, 2), (33, 47), (64, 64), (31, 129)])
@pytest.mark.parametrize("name", NAMES)
def test_every_size_comes_back_at_its_size_or_the_budget_is_said_to_be_too_small(
    name: str, size: tuple[int, int]
) -> None:
    image = torch.rand(1, 3, *size)
    for budget in (0.4, 1.0):
        method = make(name, budget=budget)
        message = error_of(lambda m=method: answer(m, image))
        if message:
            assert budget < 1
            assert name != "dense"
            assert message.startswith("budget is ")
            assert "raise the budget" in message
            continue
        prediction = answer(method, image)
        assert prediction.labels.shape == (1, *size)
        assert prediction.labels.dtype == torch.uint8
        assert int(prediction.labels.max()) < CLASSES
        assert prediction.full_logits.shape == (1, CLASSES, *size)
        assert torch.equal(prediction.full_logits.argmax(1).to(torch.uint8), prediction.labels)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((1, 3, 8, 8), float("nan")), "images hold NaN or infinity; give finite numbers in 0..1"),
        (torch.full((1, 3, 8, 8), float("inf")), "images hold NaN or infinity"),
        (torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1) * float("inf"), "images hold NaN or infinity"),
        (torch.rand(1, 4, 8, 8), r"images are \[1, 4, 8, 8\]; give \[N, 3, H, W\]"),
        (torch.rand(1, 1, 8, 8), r"images are \[1, 1, 8, 8\]; give"),
        (torch.rand(3, 8, 8), r"images are \[3, 8, 8\]; give"),
        (torch.rand(0, 3, 8, 8), r"images are \[0, 3, 8, 8\]; .* nothing empty"),
        (torch.rand(1, 3, 0, 8), r"images are \[1, 3, 0, 8\]; give"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "images are torch.uint8; give floating point numbers"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "divide bytes by 255"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(method: AdaptiveSegmenter, bad: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer(method, bad)
    with pytest.raises(ValueError, match=message):
        method.dense_labels(bad)


def test_one_nan_among_many_images_is_found(method: AdaptiveSegmenter) -> None:
    image = torch.rand(2, 3, 64, 64)
    image[1, 2, 63, 63] = float("nan")
    with pytest.raises(ValueError, match="images hold NaN"):
        answer(method, image)


def test_large_images_in_half_precision_are_not_taken_for_infinite() -> None:
    image = torch.ones(1, 3, 160, 160, dtype=torch.float16)
    prediction = answer(make("dense", nn.Conv2d(3, CLASSES, 1).half()), image)
    assert prediction.labels.shape == (1, 160, 160)


@pytest.mark.parametrize("name", NAMES)
def test_plans_cover_the_image_of_the_prediction(name: str) -> None:
    prediction = answer(make(name, levels=2, budget=0.6), torch.rand(1, 3, 75, 130))
    assert prediction.size == (75, 130)
    for step in prediction.trace.steps:
        assert step.plan is None or tuple(step.plan.levels.shape[1:]) == grid((75, 130), step.plan.tile)
