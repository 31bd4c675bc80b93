from __future__ import annotations

import pytest
import torch

from foveal.objectives.disagreement import class_weights, disagreement, excess_error
from samples import error_of

WEIGHTS = torch.tensor([0.5, 2.0, 1.3, 4.0])


def answers(images: int = 3, share: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense labels, and labels that were drawn again at a share of the pixels."""
    dense = torch.randint(0, 4, (images, 9, 7), dtype=torch.uint8)
    again = torch.randint(0, 4, (images, 9, 7), dtype=torch.uint8)
    return torch.where(torch.rand(images, 9, 7) < share, again, dense), dense


def test_it_is_the_weight_of_what_differs_over_the_weight_of_everything() -> None:
    labels, dense = answers()
    expected = []
    for n in range(3):
        wrong = everything = 0.0
        for given, wanted in zip(labels[n].flatten().tolist(), dense[n].flatten().tolist(), strict=True):
            everything += float(WEIGHTS[wanted])
            wrong += float(WEIGHTS[wanted]) * (given != wanted)
        expected.append(wrong / everything)
    assert min(expected) > 0
    assert disagreement(labels, dense, WEIGHTS).tolist() == pytest.approx(expected, rel=1e-6)


def test_equal_answers_agree_exactly_and_opposite_ones_not_at_all() -> None:
    dense = answers()[1]
    assert disagreement(dense, dense, WEIGHTS).tolist() == [0, 0, 0]
    assert disagreement((dense + 1) % 4, dense.long(), WEIGHTS).tolist() == [1, 1, 1]


def test_images_do_not_influence_one_another() -> None:
    labels, dense = answers()
    alone = [disagreement(labels[n : n + 1], dense[n : n + 1], WEIGHTS).item() for n in range(3)]
    assert disagreement(labels, dense, WEIGHTS).tolist() == alone


def test_the_weight_is_that_of_the_dense_class() -> None:
    dense = torch.tensor([[[0, 0, 0, 3]]])
    labels = torch.tensor([[[3, 0, 0, 3]]])
    assert disagreement(labels, dense, WEIGHTS).item() == pytest.approx(0.5 / 5.5)


def test_label_maps_of_two_shapes_and_void_are_refused() -> None:
    labels, dense = answers()
    assert "(3, 9, 6)" in error_of(lambda: disagreement(labels[:, :, 1:], dense, WEIGHTS))
    dense[0, 0, 0] = 255
    assert "class 255 and there are weights for 4" in error_of(lambda: disagreement(labels, dense, WEIGHTS))


def test_the_error_beyond_dense_counts_what_labels_say_and_is_never_negative() -> None:
    target = torch.tensor([[[0, 1, 2, 3, 255]]] * 4)
    dense = torch.tensor([[[0, 1, 2, 0, 0]]] * 4)  # misses class 3
    labels = torch.tensor([[[0, 1, 2, 0, 1]], [[1, 1, 2, 0, 0]], [[0, 1, 2, 3, 0]], [[1, 0, 2, 3, 0]]])
    everything = float(WEIGHTS.sum())  # the place without a label does not count
    expected = [0.0, 0.5 / everything, 0.0, 0.0]  # it may miss others for a class that weighs more
    assert excess_error(labels, dense, target, WEIGHTS).tolist() == pytest.approx(expected, abs=1e-7)
    target[3, 0, 3] = 1
    assert excess_error(labels, dense, target, WEIGHTS)[3].item() == pytest.approx(2.5 / 5.8)


def test_an_answer_has_no_error_beyond_dense_where_it_equals_it_or_nothing_is_labelled() -> None:
    labels, dense = answers()
    target = answers()[1]
    assert excess_error(dense, dense, target, WEIGHTS).tolist() == [0, 0, 0]
    assert excess_error(labels, dense, torch.full_like(dense, 255), WEIGHTS).tolist() == [0, 0, 0]
    against_dense = disagreement(labels, dense, WEIGHTS).tolist()
    assert excess_error(labels, dense, dense, WEIGHTS).tolist() == pytest.approx(against_dense)


def test_true_labels_of_another_shape_or_class_are_refused() -> None:
    labels, dense = answers()
    said = error_of(lambda: excess_error(labels, dense, dense[:, 1:], WEIGHTS))
    assert said.startswith("labels are (3, 9, 7), the dense ones (3, 9, 7) and the true ones (3, 8, 7)")
    target = dense.clone()
    target[0, 0, 0] = 4
    assert "the true labels hold class 4" in error_of(lambda: excess_error(labels, dense, target, WEIGHTS))


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_rarer_classes_weigh_more_and_a_pixel_weighs_one_on_average(power: float) -> None:
    counts = torch.tensor([600, 250, 100, 50])
    weights = class_weights(counts, power)
    assert bool((weights[1:] > weights[:-1]).all())
    assert ((counts * weights).sum() / counts.sum()).item() == pytest.approx(1)
    assert (weights[3] / weights[0]).item() == pytest.approx(12**power, rel=1e-5)


def test_power_0_counts_pixels() -> None:
    assert class_weights(torch.tensor([7, 1, 0]), 0.0).tolist() == [1, 1, 1]


def test_a_class_that_never_occurs_weighs_as_the_rarest_that_does() -> None:
    weights = class_weights(torch.tensor([80, 0, 5, 15]))
    assert weights[1] == weights[2] == weights.max()
    without = class_weights(torch.tensor([80, 5, 15]))
    assert weights[[0, 2, 3]].tolist() == pytest.approx(without.tolist())


def test_no_answers_at_all_weigh_alike_and_negative_counts_are_refused() -> None:
    assert class_weights(torch.zeros(3)).tolist() == [1, 1, 1]
    assert "counts hold -2" in error_of(lambda: class_weights(torch.tensor([3, -2])))
