from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from foveal.data.augmentation import Augment
from foveal.data.batches import Batches, class_shares

MAIN, EXTRA = 10, 4


class Numbered:
    """Images of one grey each, labelled with their number."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.count, self.first, self.decoded = count, first, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.decoded.append(index)
        number = self.first + index
        return torch.full((3, 4, 5), number / 255), torch.full((4, 5), number, dtype=torch.uint8)


def as_it_is(image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    return image, labels


def numbers(batches: Batches, steps: range) -> list[int]:
    return [int(label[0, 0]) for step in steps for label in batches[step][1]]


@pytest.mark.parametrize("batch", [1, 3, 4, 10, 16])
def test_every_epoch_is_a_permutation_and_each_another(batch: int) -> None:
    drawn = numbers(Batches(Numbered(MAIN), as_it_is, batch, seed=0), range(5 * MAIN))
    epochs = [tuple(drawn[n : n + MAIN]) for n in range(0, 5 * MAIN, MAIN)]
    assert all(sorted(epoch) == list(range(MAIN)) for epoch in epochs)
    assert len(set(epochs)) == 5


def test_the_order_does_not_depend_on_the_batch_but_on_the_seed() -> None:
    orders = [
        numbers(Batches(Numbered(MAIN), as_it_is, batch, seed), range(20 // batch))
        for batch, seed in ((1, 0), (4, 0), (4, 1))
    ]
    assert orders[0] == orders[1]
    assert orders[1] != orders[2]


def test_a_batch_holds_images_with_their_labels() -> None:
    whole = Augment((4, 5), (1.0, 1.0), flip=False, jitter=0.0)
    image, labels = Batches(Numbered(MAIN), whole, 3, seed=0)[7]
    assert image.shape == (3, 3, 4, 5)
    assert image.dtype == torch.float32
    assert labels.shape == (3, 4, 5)
    assert labels.dtype == torch.int64
    assert torch.equal((image[:, 0] * 255).round().long(), labels)


def test_a_step_gives_the_same_batch_whatever_came_before() -> None:
    def fresh() -> Batches:
        return Batches(Numbered(MAIN), Augment((8, 8)), 3, 5, Numbered(EXTRA, 100), 0.5)

    walked = fresh()
    for step in (0, 1, 2, 9, 3):
        walked[step]
    torch.manual_seed(77)
    for ours, theirs in zip(walked[6], fresh()[6], strict=True):
        assert torch.equal(ours, theirs)


def test_an_image_in_bytes_gives_the_view_of_the_same_image_in_floats() -> None:
    pixels = torch.randint(256, (3, 30, 40), dtype=torch.uint8, generator=Generator().manual_seed(1))
    labels = torch.zeros(30, 40, dtype=torch.uint8)
    for seed in range(20):
        views = [
            Augment((16, 24), colour=0.1)(image, labels, Generator().manual_seed(seed))
            for image in (pixels, pixels.float() / 255)
        ]
        assert torch.equal(views[0][0], views[1][0])
        assert torch.equal(views[0][1], views[1][1])


def test_the_same_sample_is_seen_differently_in_every_epoch() -> None:
    image, labels = torch.rand(3, 40, 40), torch.zeros(40, 40, dtype=torch.uint8)
    views = Batches([(image, labels)], Augment((16, 16)), 1, seed=0)
    assert not torch.equal(views[0][0], views[1][0])


def test_the_second_data_set_fills_its_share_at_random() -> None:
    batches = Batches(Numbered(MAIN), as_it_is, 10, 0, Numbered(EXTRA, 100), 0.3)
    drawn = numbers(batches, range(100))
    extra = [number for number in drawn if number >= 100]
    assert 0.25 < len(extra) / len(drawn) < 0.35
    assert all(extra.count(100 + k) > 0.15 * len(extra) for k in range(EXTRA))
    assert len({number for number in drawn if number < 100}) == MAIN


@pytest.mark.parametrize(("share", "expected"), [(0.0, {False}), (1.0, {True})])
def test_a_share_of_none_or_all(share: float, expected: set[bool]) -> None:
    batches = Batches(Numbered(MAIN), as_it_is, 5, 0, Numbered(EXTRA, 100), share)
    assert {number >= 100 for number in numbers(batches, range(20))} == expected


def test_files_are_decoded_once() -> None:
    data = Numbered(MAIN)
    numbers(Batches(data, as_it_is, 5, 0), range(10))
    assert sorted(data.decoded) == list(range(MAIN))


def test_a_view_leaves_image_and_labels_as_they_are() -> None:
    image = torch.randint(256, (3, 12, 12), dtype=torch.uint8)
    labels = torch.randint(4, (12, 12), dtype=torch.uint8)
    kept = image.clone(), labels.clone()
    for seed in range(10):
        Augment((8, 8), colour=0.2)(image, labels, Generator().manual_seed(seed))
    assert torch.equal(image, kept[0])
    assert torch.equal(labels, kept[1])


def test_epochs_are_counted() -> None:
    batches = Batches(Numbered(MAIN), as_it_is, 4, 0)
    assert [batches.epoch(step) for step in (0, 5)] == [0.0, 2.0]


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="the training data set is empty"):
        Batches(Numbered(0), as_it_is, 4, 0)


def test_shares_of_classes_leave_void_out() -> None:
    labels = torch.tensor([[0, 0, 0, 1], [255, 255, 255, 255]], dtype=torch.uint8)
    data = [(torch.zeros(3, 2, 4), labels), (torch.zeros(3, 2, 4), torch.full_like(labels, 2))]
    assert class_shares(data, 4).tolist() == pytest.approx([3 / 12, 1 / 12, 8 / 12, 0])
    assert class_shares([(torch.zeros(3, 1, 1), torch.full((1, 1), 255))], 2).tolist() == [0, 0]
