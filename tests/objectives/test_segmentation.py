from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.objectives.segmentation import balanced_weights, cross_entropy, divergence

WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.3])


def labelled(void: float = 0.3) -> tuple[Tensor, Tensor]:
    logits = torch.randn(2, 4, 12, 10)
    target = torch.randint(0, 4, (2, 12, 10))
    return logits, target.masked_fill(torch.rand(2, 12, 10) < void, 255)


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("void", [0.0, 0.4])
def test_it_is_the_cross_entropy_of_torch(weight: Tensor | None, void: float) -> None:
    logits, target = labelled(void)
    expected = F.cross_entropy(logits, target, weight, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, target, weight), expected)


def test_logits_are_brought_to_the_size_of_the_labels() -> None:
    logits, target = torch.randn(2, 4, 6, 5), labelled()[1]
    large = F.interpolate(logits, size=(12, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        cross_entropy(logits, target), F.cross_entropy(large, target, ignore_index=255)
    )


@pytest.mark.parametrize("share", [0.9, 0.25, 0.01, 1e-6])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_only_the_hardest_share_of_the_labelled_pixels_counts(share: float, weight: Tensor | None) -> None:
    logits, target = labelled()
    known = target != 255
    each = F.cross_entropy(logits, target, weight, ignore_index=255, reduction="none")[known]
    norm = torch.ones_like(each) if weight is None else weight[target[known]]
    hardest = each.argsort(descending=True)[: max(1, int(share * len(each)))]
    expected = each[hardest].sum() / norm[hardest].sum()
    torch.testing.assert_close(cross_entropy(logits, target, weight, share), expected)


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("share", [1.0, 0.2])
def test_nothing_but_void_costs_nothing(weight: Tensor | None, share: float) -> None:
    logits = torch.randn(1, 4, 5, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 5, 5), 255), weight, share)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_weight_of_zero_ignores_a_class() -> None:
    logits, target = labelled()
    moved = logits.clone()
    moved.movedim(1, -1)[target == 2] = torch.randn(4)
    torch.testing.assert_close(cross_entropy(logits, target, WEIGHT), cross_entropy(moved, target, WEIGHT))


def test_void_has_no_gradient() -> None:
    logits, target = labelled()
    logits.requires_grad_()
    cross_entropy(logits, target, WEIGHT).backward()
    gradient = logits.grad.abs().sum(1)
    assert float(gradient[target == 255].max()) == 0
    assert float(gradient[(target != 255) & (target != 2)].min()) > 0


def test_the_loss_is_computed_in_single_precision() -> None:
    logits, target = labelled()
    loss = cross_entropy(logits.bfloat16(), target)
    assert loss.dtype == torch.float32


def test_equal_logits_do_not_diverge_and_a_constant_does_not_matter() -> None:
    logits = torch.randn(2, 4, 6, 6) * 10
    assert divergence(logits, logits).item() == pytest.approx(0, abs=1e-6)
    assert divergence(logits + 7, logits).item() == pytest.approx(0, abs=1e-5)


def test_other_logits_diverge_and_it_matters_who_teaches() -> None:
    one, other = torch.randn(2, 2, 4, 6, 6) * 3
    expected = F.kl_div(one.log_softmax(1), other.softmax(1), reduction="none").sum(1).mean()
    torch.testing.assert_close(divergence(one, other), expected)
    assert divergence(one, other).item() > 0
    assert divergence(one, other).item() != pytest.approx(divergence(other, one).item())


def test_divergence_stays_finite_for_certain_answers() -> None:
    sure = torch.zeros(1, 2, 1, 1)
    sure[:, 0] = 1000.0
    student = (-sure).requires_grad_()
    loss = divergence(student, sure)
    loss.backward()
    assert loss.item() == pytest.approx(1000)
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_rarer_classes_weigh_more_and_the_mean_is_one(power: float) -> None:
    shares = torch.tensor([0.6, 0.25, 0.1, 0.05])
    weights = balanced_weights(shares, power)
    assert bool((weights[1:] > weights[:-1]).all())
    assert weights.mean().item() == pytest.approx(1)
    ratio = (shares[0] / shares[3]) ** power
    assert (weights[3] / weights[0]).item() == pytest.approx(ratio.item(), rel=1e-5)


def test_power_0_counts_pixels_and_absent_classes_weigh_nothing() -> None:
    shares = torch.tensor([0.7, 0.0, 0.3])
    assert balanced_weights(shares, 0.0).tolist() == [1, 0, 1]
    weights = balanced_weights(shares)
    assert weights[1] == 0
    assert weights[[0, 2]].mean().item() == pytest.approx(1)


def test_weights_of_nothing_are_finite() -> None:
    assert balanced_weights(torch.zeros(3)).tolist() == [1, 1, 1]


def test_labels_may_be_bytes() -> None:
    logits, target = labelled()
    assert torch.equal(cross_entropy(logits, target.byte()), cross_entropy(logits, target))
