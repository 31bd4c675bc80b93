"""The laws frame by frame, for every method that remembers: its memory is given on from one to the next."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor

import foveal
from conformance import Networks, answers, assert_close, make
from foreign import UNet, lively, picture
from foveal.adaptive.opening import describe
from foveal.calibration.engine import find_engine
from foveal.cost import count_macs
from foveal.geometry.plan import SKIP
from foveal.methods import METHODS, AdaptiveSegmenter, Prediction
from foveal.tiles.video import VideoMemory
from samples import error_of

NAMES = [name for name, kind in METHODS.items() if kind.uses_memory]
WAYS = [*NAMES, "blockcopy sample", "blockcopy difference"]
SIZE, TILE = (150, 200), 32


def method_of(way: str, budget: float = 0.5, **wishes: object) -> AdaptiveSegmenter:
    """Make a method whose policy is small beside a small network."""
    name, _, how = way.partition(" ")
    wishes = {"policy_width": 1, "block_tiles": 1, "learn_every": 2, "max_age": 3, **wishes}
    wishes |= {"policy": how} if how == "difference" else {"choice": how} if how else {}
    return make(name, Networks(fused=True).nano(), budget, tile=TILE, **wishes)


@pytest.fixture(params=WAYS)
def method(request: pytest.FixtureRequest) -> AdaptiveSegmenter:
    """Give every method that remembers, deciding in every way."""
    return method_of(request.param)


def moving(frames: int = 5, streams: int = 2) -> list[Tensor]:
    """Draw frames over which a square moves, noise in another part."""
    torch.manual_seed(3)
    ground, found = torch.rand(streams, 3, *SIZE), []
    for k in range(frames):
        frame = ground.clone()
        frame[:, :, 20:60, 10 + 20 * k : 50 + 20 * k] = torch.rand(streams, 3, 1, 1)
        frame[:, :, 100:, :60] += 0.05 * torch.randn(streams, 3, 50, 60)
        found.append(frame)
    return found


def test_a_still_video_costs_nothing_and_gives_the_same_bits(method: AdaptiveSegmenter) -> None:
    frame = moving(1)[0]
    first, *later = answers(method, [frame] * 40)
    assert bool((first.trace.work > 0).all())
    for again in later:
        assert not again.trace.work.any()
        assert again.trace.plan is not None and bool((again.trace.plan.levels == SKIP).all())
        assert torch.equal(again.logits, first.logits) and torch.equal(again.labels, first.labels)
        assert again.memory is not None and again.memory.bytes == later[0].memory.bytes  # type: ignore[union-attr]
    memory = later[-1].memory
    with torch.no_grad():
        assert count_macs(lambda: method(frame, memory)).total == 0


@pytest.mark.parametrize("budget", [0.3, 0.6])
@pytest.mark.parametrize("way", WAYS)
def test_the_budget_is_kept_in_every_frame(way: str, budget: float) -> None:
    found = answers(method_of(way, budget, levels=2), moving(6))
    for prediction in found:
        assert float(prediction.trace.work.max()) <= budget + TILE**2 / prod(SIZE) + 1e-9
    assert any(float(prediction.trace.work.max()) > 0 for prediction in found[1:])


@pytest.mark.parametrize("way", WAYS)
def test_counted_macs_are_those_of_the_trace(way: str) -> None:
    method, frames, memory = method_of(way, learn_every=0), moving(4), None
    method.network = Networks().headless()
    for frame in frames:
        seen: list[Prediction] = []
        macs = count_macs(lambda m=memory, f=frame, s=seen: s.append(method(f, m))).convolution
        steps, memory = seen[0].trace.steps, seen[0].memory
        one = count_macs(lambda: method.network(torch.rand(1, 3, TILE, TILE))).convolution
        planned = sum(one * int(step.plan.tiles.sum()) for step in steps if step.plan is not None)
        assert macs >= planned if len(steps) > 1 else macs == planned


@pytest.mark.parametrize("name", NAMES)
def test_a_first_frame_may_have_a_budget_of_its_own(name: str) -> None:
    method, frames = method_of(name, 0.4, first_budget=1.0), moving(3)
    first, *later = answers(method, frames)
    with torch.no_grad():
        assert_close(first.logits, method.dense()(frames[0]))
    assert max(float(p.trace.work.max()) for p in later) <= 0.4 + TILE**2 / prod(SIZE)


def test_streams_do_not_influence_one_another(method: AdaptiveSegmenter) -> None:
    frames = moving()
    frames = [torch.stack([f[0], frames[0][1]]) for f in frames]  # the second one stands still
    together = answers(method, frames)
    for n in range(2):
        for ours, theirs in zip(answers(method, [f[n : n + 1] for f in frames]), together, strict=True):
            assert_close(ours.logits[0], theirs.logits[n], 1e-4)
            assert float(ours.trace.work[0]) == pytest.approx(float(theirs.trace.work[n]))


def test_frames_change_neither_the_memory_nor_the_method(method: AdaptiveSegmenter) -> None:
    frames = moving(4)
    memory = answers(method, frames[:3])[-1].memory
    assert isinstance(memory, VideoMemory)
    values = [memory.logits, memory.picture, memory.age, *memory.state.values()]
    values += [*(r.tiles for r in memory.records), *method.state_dict().values()]
    before = [value.clone() for value in values]
    with torch.no_grad():
        first, again = method(frames[3], memory), method(frames[3], memory)
    assert all(torch.equal(now, then) for now, then in zip(values, before, strict=True))
    assert torch.equal(first.logits, again.logits)
    assert torch.equal(first.trace.work, again.trace.work)


def test_a_frame_that_the_caller_changes_later_does_not_change_the_memory(method: AdaptiveSegmenter) -> None:
    frame = moving(1)[0]
    memory = answers(method, [frame])[0].memory
    assert isinstance(memory, VideoMemory)
    before = memory.picture.clone()
    frame.zero_()
    assert torch.equal(memory.picture, before)


def test_a_saved_memory_gives_the_same_next_frames(method: AdaptiveSegmenter, tmp_path: Path) -> None:
    frames = moving(6)
    expected = answers(method, frames)
    memory = expected[2].memory
    assert isinstance(memory, VideoMemory)
    memory.save(tmp_path / "video.safetensors")
    memory = VideoMemory.load(tmp_path / "video.safetensors")
    with torch.no_grad():
        for frame, wanted in zip(frames[3:], expected[3:], strict=True):
            found = method(frame, memory)
            assert torch.equal(found.logits, wanted.logits)
            assert torch.equal(found.trace.work, wanted.trace.work)
            memory = found.memory


def test_a_memory_of_something_else_is_refused(method: AdaptiveSegmenter) -> None:
    memory = answers(method, moving(1))[0].memory
    assert isinstance(memory, VideoMemory)
    other = make("video_coarse_to_fine" if memory.method == "blockcopy" else "blockcopy")
    for refused in (
        lambda: method(torch.rand(2, 3, 64, 64), memory),
        lambda: method(torch.rand(1, 3, *SIZE), memory),
        lambda: other(torch.rand(2, 3, *SIZE), memory),
    ):
        assert "start anew without" in error_of(refused)
    restarted = memory.restarted()
    with torch.no_grad():
        again = method(torch.rand(2, 3, 64, 64), restarted)
    assert again.labels.shape == (2, 64, 64)
    assert isinstance(again.memory, VideoMemory)
    assert all(torch.equal(again.memory.state[k], v) for k, v in memory.state.items())


@pytest.mark.parametrize("scale", [1.0, 0.6])
@pytest.mark.parametrize("name", NAMES)
def test_memories_pass_through_scaled_and_padded_methods(name: str, scale: float) -> None:
    engine, frame = find_engine(describe(foveal.adapt(lively(UNet(3))))), picture(3, (203, 270))
    made = engine.make(name, METHODS[name].Config(0.25, scale=scale, coarse_level=2))
    first, again = answers(made, [frame, frame])
    assert float(first.trace.work) > 0 == float(again.trace.work)
    assert torch.equal(first.labels, again.labels)
