"""Methods of video on a program: the same decisions and answers as layer by layer, from native memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance import CLASSES, Networks, answers, assert_close, make
from foveal.calibration.engine import find_engine
from foveal.cost import count_macs
from foveal.data.pairs import default_palette
from foveal.fusion import fuse
from foveal.geometry.plan import SKIP
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.kernels import build
from foveal.methods import METHODS, AdaptiveSegmenter, CompiledFrames, Prediction
from foveal.methods.compiled_frames import StreamMemory
from foveal.methods.frames import FrameSegmenter
from foveal.program import Program, compile_network
from foveal.tiles.video import VideoMemory
from samples import error_of, headless, nano

SIZE = (136, 200)
NETWORKS = {"nano": (nano, 32), "headless": (headless, 16)}


@pytest.fixture(autouse=True)
def needs_kernels() -> None:
    if not build.available():
        pytest.skip("no compiler")


@cache
def network(name: str) -> Any:
    torch.manual_seed(0)
    return NETWORKS[name][0](CLASSES)


@cache
def program(name: str) -> Program:
    return compile_network(network(name))


def pair(method: str, name: str = "nano", budget: float = 0.5, **wishes: Any) -> tuple[FrameSegmenter, Any]:
    """Make a method layer by layer, and on a program."""
    wishes = {"tile": NETWORKS[name][1], "max_age": 3, "policy_width": 1, "block_tiles": 1, **wishes}
    eager, inner = (make(method, fuse(network(name)), budget, **wishes) for _ in range(2))
    assert isinstance(eager, FrameSegmenter) and isinstance(inner, FrameSegmenter)
    settings: Any = inner.config.program_run()  # type: ignore[attr-defined]
    return eager, CompiledFrames(inner, program(name), settings).eval()


def scene(seed: int, size: tuple[int, int] = SIZE, streams: int = 1) -> Tensor:
    """Draw a picture of large patches, as scenes have them."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(streams, 3, 6, 8, generator=generator)
    return torch.nn.functional.interpolate(small, size, mode="bilinear")


def video(size: tuple[int, int] = SIZE, frames: int = 9, streams: int = 1, cut: int = 6) -> list[Tensor]:
    """Draw a square that moves, noise in one part, a place that drifts slowly, and another scene."""
    generator, found = torch.Generator().manual_seed(1), []
    for k in range(frames):
        frame = scene(0 if k < cut else 5, size, streams)
        frame[:, :, 10:50, 9 * k : 9 * k + 40] = torch.rand(streams, 3, 1, 1, generator=generator)
        noise = torch.randn(frame[:, :, size[0] // 2 :, :60].shape, generator=generator)
        frame[:, :, size[0] // 2 :, :60] += 0.03 * noise
        frame[:, :, :20, size[1] // 2 :] += 0.001 * k
        found.append(frame.clamp(0, 1))
    return found


def levels(prediction: Prediction) -> Tensor:
    assert prediction.trace.plan is not None
    return prediction.trace.plan.levels


def assert_same(ours: AdaptiveSegmenter, theirs: AdaptiveSegmenter, frames: list[Tensor]) -> list[Prediction]:
    """See that two engines compute the same of every frame, and say the same."""
    found = answers(ours, frames)
    for k, (one, two) in enumerate(zip(found, answers(theirs, frames), strict=True)):
        assert torch.equal(levels(one), levels(two)), k
        assert torch.equal(one.trace.work, two.trace.work)
        assert_close(one.logits, two.logits, 1e-4)
        assert float((one.labels == two.labels).double().mean()) > 0.9995
    return found


@pytest.mark.parametrize("policy", ["weighted_entropy", "entropy", "margin", "regional_entropy"])
@pytest.mark.parametrize(
    ("name", "size", "wishes"),
    [
        ("nano", SIZE, {"levels": 2, "budget": 0.3}),
        ("nano", (97, 310), {"levels": 1, "first_budget": 1.0, "budget": 0.15}),
        ("headless", (75, 101), {"levels": 3, "budget": 0.5}),
        ("headless", (75, 101), {"levels": 2, "tile": 12, "hysteresis": 0.0, "first_budget": 1.0}),
    ],
)
def test_decisions_and_answers_are_those_of_the_layers(
    policy: str, name: str, size: tuple[int, int], wishes: dict[str, Any]
) -> None:
    eager, compiled = pair("video_coarse_to_fine", name, policy=policy, **wishes)
    found = assert_same(compiled, eager, video(size, streams=2))
    assert all(bool((levels(found[k]) >= 0).all()) for k in (0, 6))  # scenes begin there
    assert all(float(p.trace.work.max()) > 0 for p in found) and any(
        0 < int((levels(p) == SKIP).sum()) < levels(p).numel() for p in found
    )


@pytest.mark.parametrize("policy", ["difference", "random", "weighted_entropy", "online"])
def test_blocks_that_python_chooses_run_on_the_program(policy: str) -> None:
    eager, compiled = pair("blockcopy", policy=policy, budget=0.5, first_budget=1.0, learn_every=2)
    found = assert_same(compiled, eager, video())
    memory = found[-1].memory
    assert isinstance(memory, StreamMemory) and bool(memory.state) == (policy == "online")


@pytest.mark.parametrize("method", ["video_coarse_to_fine", "blockcopy"])
def test_a_still_video_costs_nothing_and_gives_the_same_bits(method: str) -> None:
    _, compiled = pair(method, policy="margin" if method == "blockcopy" else "entropy")
    first, *later = answers(compiled, [scene(0)] * 12)
    assert float(first.trace.work) > 0
    for again in later:
        assert not again.trace.work.any() and bool((levels(again) == SKIP).all())
        assert torch.equal(again.logits, first.logits) and torch.equal(again.labels, first.labels)
        assert again.memory is not None and again.memory.bytes == first.memory.bytes  # type: ignore[union-attr]
    frame, memory = scene(0), later[-1].memory
    assert count_macs(lambda: compiled(frame, memory).labels).total == 0


def test_places_that_differ_a_little_are_computed_when_they_are_old() -> None:
    eager, compiled = pair("video_coarse_to_fine", max_age=4, first_budget=1.0, levels=2)
    frame = scene(0)
    drifted = frame.clone()
    drifted[:, :, :30, :30] += 0.004  # far below noise
    works = [float(p.trace.work) for p in assert_same(compiled, eager, [frame, *[drifted] * 6])]
    assert works[1:4] == [0.0] * 3 and works[4] > 0 and works[5:] == [0.0, 0.0]


def test_a_memory_is_spent_once_and_copies_are_not() -> None:
    _, compiled = pair("video_coarse_to_fine")
    frames = video()
    first = answers(compiled, frames[:2])[-1].memory
    assert isinstance(first, StreamMemory)
    other = first.copy()
    with torch.no_grad():
        one = compiled(frames[2], first)
        assert "the memory is spent" in error_of(lambda: compiled(frames[2], first))
        assert "the memory is spent" in error_of(lambda: first.logits)
        two = compiled(frames[2], other)
        assert torch.equal(one.logits, two.logits)
        assert torch.equal(compiled(frames[3], one.memory).logits, compiled(frames[3], two.memory).logits)


def test_streams_do_not_influence_one_another() -> None:
    _, compiled = pair("video_coarse_to_fine")
    frames = video()
    backwards = [scene(5)] * len(frames)
    expected = answers(compiled, frames)
    memories: list[Any] = [None, None]
    with torch.no_grad():
        for frame, still, wanted in zip(frames, backwards, expected, strict=True):
            found = [compiled(image, memory) for image, memory in zip((frame, still), memories, strict=True)]
            memories = [p.memory for p in found]
            assert torch.equal(found[0].logits, wanted.logits)


@pytest.mark.parametrize("method", ["video_coarse_to_fine", "blockcopy"])
def test_a_saved_memory_goes_on_where_it_was(method: str, tmp_path: Path) -> None:
    _, compiled = pair(method, budget=0.5)
    frames, file = video(), tmp_path / "video.safetensors"
    memory = answers(compiled, frames[:3])[-1].memory
    assert isinstance(memory, VideoMemory)
    memory.save(file)
    loaded = VideoMemory.load(file)
    assert torch.equal(loaded.held, memory.held) and loaded.records and loaded.size == SIZE
    with torch.no_grad():
        for frame in frames[3:]:
            one, two = compiled(frame, memory), compiled(frame, loaded)
            assert torch.equal(levels(one), levels(two)) and torch.equal(one.labels, two.labels)
            assert_close(one.logits, two.logits, 1e-5)
            memory, loaded = one.memory, two.memory


def test_a_memory_of_something_else_is_refused() -> None:
    eager, compiled = pair("video_coarse_to_fine")
    frame = scene(0)
    theirs, ours = answers(eager, [frame])[0].memory, answers(compiled, [frame])[0].memory
    blocks = pair("blockcopy", policy="difference")[1]
    for refused in (
        lambda: compiled(frame, theirs),
        lambda: blocks(frame, ours),
        lambda: compiled(scene(0, (64, 64)), ours),
        lambda: compiled(scene(0, streams=2), ours),
    ):
        assert "start anew without" in error_of(refused)
    assert isinstance(ours, VideoMemory)
    with torch.no_grad():
        assert compiled(scene(0, (64, 64)), ours.restarted()).labels.shape == (1, 64, 64)


def test_masked_frames_are_single_ones() -> None:
    eager, compiled = pair("video_coarse_to_fine", levels=1)
    wanted = torch.zeros(1, 5, 7, dtype=torch.bool)
    wanted[:, 1:3, 2:5] = True
    with torch.no_grad():
        one, two = (method.masked(scene(0), wanted) for method in (compiled, eager))
    inside = wanted.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, : SIZE[0], : SIZE[1]]
    assert torch.equal(one.trace.work, two.trace.work) and one.memory is None
    assert bool((one.labels == two.labels)[inside].all())


def model(network: Any) -> Model:
    return Model("small", network, Card("swiftnet_nano", tuple("abcde"), default_palette(CLASSES), 32))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("method", ["video_coarse_to_fine", "blockcopy"])
def test_engines_take_the_program_in_its_precision(method: str, precision: str) -> None:
    engine = find_engine(model(nano(CLASSES)), precision)
    wishes = {"policy": "difference"} if method == "blockcopy" else {}
    made = engine.make(method, METHODS[method].Config(0.4, **wishes))  # type: ignore[call-arg]
    assert isinstance(made, CompiledFrames) and made.program is engine.program
    found = answers(made, video())
    assert all(float(p.trace.work) <= 0.4 + 32**2 / (SIZE[0] * SIZE[1]) for p in found)


def test_a_network_without_a_program_runs_layer_by_layer_and_says_why() -> None:
    class Softmax(torch.nn.Module):
        classes, stride, coarsest_stride, in_channels = CLASSES, 4, 4, 3

        def __init__(self) -> None:
            super().__init__()
            self.inner = Networks().headless()

        def forward(self, image: Any) -> Any:
            return self.inner(image).softmax(1)

    engine = find_engine(model(Softmax().eval()))
    made = engine.make("video_coarse_to_fine", METHODS["video_coarse_to_fine"].Config(0.4))
    assert isinstance(made, FrameSegmenter) and "softmax" in engine.warning
    assert float(answers(made, video()[:2])[1].trace.work) > 0
