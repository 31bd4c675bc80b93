"""Which images are adapted: a hash of their content, as if drawn, and the same every time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foveal.calibration.risk.drawn import Draw, DrawnMethod, draw_number
from foveal.methods import AdaptiveSegmenter, CoarseToFine, Dense
from samples import lively, nano

SALT = "weights"


def pictures(count: int, size: tuple[int, int] = (96, 128)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def methods() -> tuple[AdaptiveSegmenter, AdaptiveSegmenter]:
    torch.manual_seed(0)
    network = lively(nano(), pictures(1)[0])
    return CoarseToFine(network, 0.6, 32, 1).eval(), Dense(network).eval()


def drawn(methods: tuple[AdaptiveSegmenter, AdaptiveSegmenter], share: float) -> AdaptiveSegmenter:
    return DrawnMethod(*methods, Draw(share, SALT)).eval()


def test_numbers_are_spread_evenly_and_differ_by_salt() -> None:
    images = pictures(2000, (8, 8))
    numbers, others = (torch.tensor([draw_number(x, salt) for x in images]) for salt in (SALT, "other"))
    quantiles = torch.quantile(numbers, torch.linspace(0, 1, 11))
    assert 0 <= float(numbers.min()) and float(numbers.max()) < 1
    assert torch.allclose(quantiles, torch.linspace(0, 1, 11), atol=0.05)
    assert abs(float(torch.corrcoef(torch.stack([numbers, others]))[0, 1])) < 0.1


def test_a_number_is_that_of_the_content() -> None:
    image = pictures(1)[0]
    number = draw_number(image, SALT)
    last = image[None].contiguous(memory_format=torch.channels_last)[0]
    stored = image.mul(255).round().div(255)  # as a file has it
    for same in (image.clone(), last, stored, image.double(), image + 1e-9):
        assert draw_number(same, SALT) == number
    assert draw_number(1 - image, SALT) != number
    assert draw_number(image.flip(2), SALT) != number


def test_a_larger_share_adapts_the_same_images_and_more() -> None:
    images = pictures(300, (8, 8))
    chosen = [{k for k, x in enumerate(images) if Draw(share, SALT)(x)} for share in (0, 0.1, 0.4, 1)]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3] == set(range(300))


@torch.no_grad()
def test_a_share_is_adapted_and_the_others_are_exactly_dense(methods) -> None:
    images = pictures(6)
    numbers = sorted(draw_number(x, SALT) for x in images)
    method = drawn(methods, (numbers[2] + numbers[3]) / 2)
    together = method(images)
    for k, image in enumerate(images):
        adapted = draw_number(image, SALT) <= numbers[2]
        alone = methods[0 if adapted else 1](image[None])
        assert torch.equal(together.labels[k], alone.labels[0])
        assert torch.allclose(together.logits[k], alone.logits[0], atol=1e-5)
        assert together.trace.work[k] == alone.trace.work[0]
        assert torch.equal(method(image[None]).labels, alone.labels)
        levels = together.trace.levels[k]
        assert bool(levels.any()) is adapted
        left = method.remaining_gain(image[None], method(image[None]))
        assert (float(left) > 0) is adapted
    assert method.least_work((96, 128)) == methods[0].least_work((96, 128))
    assert method.decide(images) is not None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_where_all_images_are_of_one_kind_their_method_runs_them_together(methods, share: float) -> None:
    images = pictures(2)
    found, expected = drawn(methods, share)(images), methods[int(share == 0)](images)
    assert torch.equal(found.logits, expected.logits)
    assert [step.name for step in found.trace.steps] == [step.name for step in expected.trace.steps]
    assert (drawn(methods, share).decide(images) is None) is (share == 0)


def test_what_is_no_image_is_refused_before_it_is_hashed(methods) -> None:
    with pytest.raises(ValueError, match="images hold NaN or infinity"):
        drawn(methods, 0.5)(torch.full((1, 3, 64, 64), torch.nan))
