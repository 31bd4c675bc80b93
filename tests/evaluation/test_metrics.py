from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from foveal.evaluation.metrics import BoundaryScore, Confusion
from strategies import sources


def maps(seed: int, shape: tuple[int, ...] = (2, 9, 11), classes: int = 4) -> tuple[Tensor, Tensor]:
    """Labels in patches, and a guess that is right in most places; a part is void."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, (shape[0], 4, 4), generator=generator)
    target = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, : shape[1], : shape[2]].clone()
    noise = torch.rand(target.shape, generator=generator)
    guess = torch.where(noise < 0.15, (target + 1) % classes, target)
    return guess.to(torch.uint8), target.masked_fill(noise > 0.9, 255).to(torch.uint8)


@settings(max_examples=20)
@given(source=sources())
def test_iou_is_that_of_sets_of_pixels_over_all_images(source: object) -> None:
    confusion, pairs = Confusion(5), [maps(source.randint(0, 10**6), (2, 9, k)) for k in (11, 7, 12)]
    for guess, target in pairs:
        confusion.add(guess, target)
    guess, target = (torch.cat([pair[k].flatten() for pair in pairs]) for k in (0, 1))
    guess, target = guess[target != 255], target[target != 255]
    expected = []
    for k in range(5):
        ours, true = guess == k, target == k
        union = int((ours | true).sum())
        expected.append(int((ours & true).sum()) / union if union else math.nan)
    assert confusion.iou.tolist() == pytest.approx(expected, nan_ok=True)
    occurring = [value for k, value in enumerate(expected) if bool((target == k).any())]
    assert confusion.miou == pytest.approx(sum(occurring) / len(occurring))
    assert confusion.accuracy == pytest.approx((guess == target).double().mean().item())


def test_rows_are_true_classes() -> None:
    confusion = Confusion(3)
    confusion.add(torch.tensor([[1, 1, 2]]), torch.tensor([[0, 0, 255]]))
    assert confusion.counts.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]


def test_a_class_that_is_predicted_but_never_true_does_not_enter_the_mean() -> None:
    confusion = Confusion(3)
    confusion.add(torch.tensor([[0, 0, 0, 2]]), torch.tensor([[0, 0, 0, 0]]))
    assert confusion.iou[0] == 0.75
    assert confusion.iou[2] == 0
    assert confusion.iou[1].isnan()
    assert confusion.miou == 0.75


def test_nothing_but_void_is_no_success() -> None:
    confusion = Confusion(2)
    confusion.add(torch.zeros(1, 4, 4, dtype=torch.uint8), torch.full((1, 4, 4), 255, dtype=torch.uint8))
    assert math.isnan(confusion.accuracy) and math.isnan(confusion.miou)


def brute_boundary(guess: Tensor, target: Tensor, tolerance: int) -> tuple[int, int, int, int]:
    """Count the boundary pixels of both maps that have one of the other nearby, pixel by pixel."""

    def edges(labels: list[list[int]]) -> set[tuple[int, int]]:
        height, width = len(labels), len(labels[0])
        return {
            (y, x)
            for y in range(height)
            for x in range(width)
            if (x + 1 < width and labels[y][x] != labels[y][x + 1])
            or (y + 1 < height and labels[y][x] != labels[y + 1][x])
        }

    def near(spot: tuple[int, int], others: set[tuple[int, int]]) -> bool:
        return any(max(abs(spot[0] - y), abs(spot[1] - x)) <= tolerance for y, x in others)

    void = {tuple(spot) for spot in (target == 255).nonzero().tolist()}
    ours, true = (
        {spot for spot in edges(labels.tolist()) if not near(spot, void)} for labels in (guess, target)
    )
    return (
        sum(near(spot, true) for spot in ours),
        len(ours),
        sum(near(spot, ours) for spot in true),
        len(true),
    )


@pytest.mark.parametrize("tolerance", [0, 1, 3])
def test_boundary_score_is_that_of_pixels_compared_one_by_one(tolerance: int) -> None:
    score, sums = BoundaryScore(tolerance), [0, 0, 0, 0]
    for seed in range(4):
        guess, target = maps(seed)
        target[:, :, :8][target[:, :, :8] == 255] = 0
        score.add(guess, target)
        for n in range(2):
            counts = brute_boundary(guess[n], target[n], tolerance)
            sums = [a + b for a, b in zip(sums, counts, strict=True)]
    assert score.sums.tolist() == sums
    precision, recall = sums[0] / sums[1], sums[2] / sums[3]
    assert score.score == pytest.approx(2 * precision * recall / (precision + recall))


def test_the_right_answer_scores_1_and_one_without_boundaries_0() -> None:
    _, target = maps(0)
    target[target == 255] = 1
    right, flat = BoundaryScore(1), BoundaryScore(1)
    right.add(target, target)
    flat.add(torch.zeros_like(target), target)
    assert right.score == pytest.approx(1)
    assert flat.score == 0


def test_a_boundary_may_be_off_by_the_tolerance_and_no_more() -> None:
    def scored(shift: int) -> float:
        guess, target = (torch.arange(40).ge(at).expand(1, 8, 40).to(torch.uint8) for at in (20 + shift, 20))
        score = BoundaryScore()
        score.add(guess, target)
        return score.score

    assert [scored(shift) for shift in (-4, -3, 0, 3, 4)] == pytest.approx([0, 1, 1, 1, 0])


def test_pixels_are_counted_one_by_one_however_many_there_were() -> None:
    many = 2**24  # one more is not a number of single precision
    confusion, score = Confusion(2), BoundaryScore(0)
    confusion.counts[0, 0] += many
    confusion.add(torch.tensor([[0]]), torch.tensor([[0]]))
    assert confusion.counts.tolist() == [[many + 1, 0], [0, 0]]
    score.sums += many
    score.add(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]]))
    assert score.sums.tolist() == [many + 1] * 4
