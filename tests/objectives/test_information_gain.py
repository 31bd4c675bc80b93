from __future__ import annotations

import pytest
import torch

from foveal.objectives.information_gain import block_maxima, segmentation_gain, signed_square


def test_the_same_answer_tells_nothing() -> None:
    logits = torch.randn(2, 5, 12, 16)
    assert torch.equal(segmentation_gain(logits, logits), torch.zeros(2, 3, 4))


def test_it_is_the_divergence_of_the_new_answer_from_the_old_averaged_over_classes() -> None:
    before, after = torch.randn(2, 1, 5, 4, 4)
    old, new = (x.mean((2, 3)).softmax(1) for x in (before, after))
    expected = (new * (new.log() - old.log())).sum(1) / 5
    torch.testing.assert_close(segmentation_gain(before, after)[:, 0, 0], expected)


def test_it_is_large_where_the_answer_changed() -> None:
    before = torch.zeros(1, 3, 16, 16)
    before[:, 0] = 4.0
    after = before.clone()
    after[:, :, :4, 12:] = torch.tensor([0.0, 4.0, 0.0]).view(1, 3, 1, 1)
    gain = segmentation_gain(before, after)
    assert float(gain[0, 0, 3]) > 0.5
    assert int((gain > 0).sum()) == 1


def test_a_sample_belongs_to_the_block_that_holds_its_middle() -> None:
    values = torch.arange(12.0).view(1, 3, 4)
    assert block_maxima(values, (48, 64), 32).tolist() == [[[5.0, 7.0], [9.0, 11.0]]]
    assert block_maxima(-values, (48, 64), 32).tolist() == [[[0.0, -2.0], [-8.0, -10.0]]]
    assert block_maxima(torch.ones(2, 1, 1), (100, 40), 32).shape == (2, 4, 2)


@pytest.mark.parametrize(("spent", "expected"), [(0.1, 0.09), (0.4, 0.0), (0.9, -0.25)])
def test_work_that_is_left_is_worth_its_square_with_its_sign(spent: float, expected: float) -> None:
    found = signed_square(torch.tensor([0.4]), torch.tensor([spent]))
    torch.testing.assert_close(found, torch.tensor([expected]))
