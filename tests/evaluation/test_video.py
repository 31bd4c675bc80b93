"""Figures over a video: flicker, memory, key frames."""

from __future__ import annotations

import math

import pytest
import torch

from conformance import make
from foveal.evaluation.baselines import KeyFrames, key_frames
from foveal.evaluation.tally import Entry
from foveal.evaluation.video import Flicker, evaluate_video
from foveal.methods import Dense
from foveal.storage.labels import VOID
from samples import error_of, nano


class Clip:
    """Frames in which the truth stands still but for one square."""

    classes = ("a", "b", "c", "d", "e")

    def __init__(self, frames: int = 4, still: bool = False) -> None:
        self.frames, self.still = frames, still

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(3, 64, 96, generator=generator)
        labels = torch.zeros(64, 96, dtype=torch.uint8)
        if not self.still:
            image[:, :16, 8 * index : 8 * index + 16] = 1.0
            labels[:16, 8 * index : 8 * index + 16] = 1
        return image, labels


def test_flicker_is_what_changes_where_the_truth_does_not() -> None:
    flicker, truth = Flicker(), torch.tensor([[0, 0, 1, VOID]])
    flicker.add(torch.tensor([[0, 0, 1, 1]]), truth)
    assert math.isnan(flicker.share)
    flicker.add(torch.tensor([[0, 2, 1, 2]]), truth)  # one of three known ones, void does not count
    assert flicker.share == pytest.approx(1 / 3)
    flicker.add(torch.tensor([[1, 2, 0, 2]]), torch.tensor([[1, 0, 0, VOID]]))  # the truth changed in two
    assert flicker.share == pytest.approx(1 / 4)


def test_rows_are_over_frames_with_the_memory_given_on() -> None:
    network = nano(5)
    method = make("video_coarse_to_fine", network, budget=0.5, first_budget=1.0, tile=32)
    entries = [Entry("ours", "", 0.5, lambda target: method), key_frames(network, 0.5)]
    dense, ours, keys = evaluate_video(Dense(network).eval(), Clip(), entries, timed=2)
    assert (dense.images, dense.work, dense.work_later, dense.memory_bytes) == (4, 1.0, 1.0, 0)
    assert ours.work_max == 1.0 and ours.work_later is not None and 0 < ours.work_later <= 0.6
    assert ours.memory_bytes > 0 and ours.macs < dense.macs and ours.ms is not None
    assert (keys.policy, keys.work, keys.work_later) == ("every 2", 0.5, pytest.approx(1 / 3, abs=1e-3))


def test_a_still_video_does_not_flicker() -> None:
    network = nano(5)
    method = make("video_coarse_to_fine", network, budget=0.5, tile=32)
    rows = evaluate_video(Dense(network).eval(), Clip(still=True), [Entry("ours", "", 0.5, lambda t: method)])
    assert [row.flicker for row in rows] == [0.0, 0.0]
    assert rows[1].work_later == 0


def test_key_frames_give_their_answer_to_the_frames_after() -> None:
    method, memory, answers = KeyFrames(nano(5), 3).eval(), None, []
    with torch.no_grad():
        for k in range(7):
            found = method(torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(k)), memory)
            memory = found.memory
            answers.append((float(found.trace.work), found.logits))
    assert [work for work, _ in answers] == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert torch.equal(answers[3][1], answers[5][1]) and not torch.equal(answers[2][1], answers[3][1])
    assert "at least 1" in error_of(lambda: KeyFrames(nano(5), 0))


def test_answers_of_key_frames_move_with_the_picture() -> None:
    """A network that sees single pixels: a moved answer is that of the moved picture, but for its edge."""
    network = torch.nn.Conv2d(3, 5, 1)
    generator = torch.Generator().manual_seed(3)
    whole = torch.nn.functional.interpolate(torch.rand(1, 3, 30, 40, generator=generator), (120, 160))
    frames = [whole[:, :, 10 + k : 90 + k, 20 + 3 * k : 120 + 3 * k] for k in range(4)]
    kept, moved = KeyFrames(network, 4).eval(), KeyFrames(network, 4, shift=True).eval()
    with torch.no_grad():
        for method, right in ((kept, False), (moved, True)):
            memory = None
            for k, frame in enumerate(frames):
                found = method(frame, memory)
                memory = found.memory
                expected = network(frame).argmax(1)
                same = (found.labels == expected)[:, : 80 - k, : 100 - 3 * k]
                assert float(found.trace.work) == float(k == 0)
                assert bool(same.all()) is (right or k == 0)
