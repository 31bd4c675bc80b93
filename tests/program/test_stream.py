"""Streams: law 15 over the frames of a video, and memory that is bounded, apart and checked."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from families import DENSE_MODULES, FAMILIES
from foreign import lively
from foveal.fusion import fuse
from foveal.models import create_model
from foveal.ops import classify
from foveal.program import PlannedRun, Program, ReuseRun, Stream, compile_network
from foveal.program.compile import compile_fused
from foveal.program.quantise import find_scales, in_bf16, in_int8
from foveal.program.spec import Request, Reuse, native
from foveal.program.stream import SceneBegins
from foveal.tiles import run_dense
from foveal.tiles.video import compute
from strategies import random_plan

TILE, TOLERANCE = 32, 1e-4
SIZES = ((136, 201), (97, 310), (20, 17))


def moving(size: tuple[int, int], frames: int, images: int = 1) -> list[np.ndarray]:
    """Draw frames over which a square moves over still ground."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(images, 3, 6, 8, generator=generator)  # a scene has structure
    ground, found = nn.functional.interpolate(patches, size, mode="bilinear"), []
    for k in range(frames):
        frame = ground.clone()
        frame[:, :, 10:50, 12 * k : 12 * k + 40] = torch.rand(images, 3, 1, 1, generator=generator)
        found.append(frame.numpy())
    return found


def whole(stream: Stream, level: int = 0) -> PlannedRun:
    return PlannedRun(np.full(stream.cells, level, np.int8), stream.tile)


def no_plan(stream: Stream) -> PlannedRun:
    return whole(stream, -1)


@torch.no_grad()
def check_frames(
    program: Program, network: nn.Module, size: tuple[int, int], images: int, tile: int, most: int = 3
) -> None:
    """Run random plans over frames in both engines."""
    source = random.Random(size[0])
    stream, memory = Stream(program, size, tile, images), None
    for k in range(7):
        skip = source.choice([0.3, 0.6, 0.9]) if k else 0.0
        plan, image = (
            random_plan(source, images, size, tile, min(k % 4, most), skip),
            torch.rand(images, 3, *size),
        )
        memory = compute(network, image, plan, memory, "test")
        found = stream.run(image, PlannedRun(plan.levels.numpy(), tile), threads=1 + k % 2, logits=True)
        expected, held = memory.logits.permute(0, 2, 3, 1).numpy(), stream.content()
        assert abs(found.logits - expected).max() < TOLERANCE * abs(expected).max()
        np.testing.assert_array_equal(held.age, memory.age.numpy())
        np.testing.assert_array_equal(held.picture, memory.picture.numpy())
        np.testing.assert_array_equal(held.level[held.owner], memory.held.numpy())
        np.testing.assert_allclose(found.work, plan.work.numpy())
        full = classify(torch.from_numpy(found.logits).permute(0, 3, 1, 2).contiguous(), size).numpy()
        np.testing.assert_array_equal(found.labels, full)  # labels that stayed are those of all logits


@pytest.mark.parametrize("size", SIZES)
def test_random_plans_over_frames(name: str, size: tuple[int, int], program, tiled) -> None:
    check_frames(program(name), tiled(name), size, 2, TILE)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_over_frames(family: str) -> None:
    torch.manual_seed(0)
    network, multiple = lively(FAMILIES[family][0]()), FAMILIES[family][1]
    names = DENSE_MODULES.get(family, ())
    fused = fuse(network, names, multiple)
    for part in names:
        run_dense(fused.get_submodule(part))
    made = compile_fused(fused, names, multiple)
    check_frames(
        made, fused, (104, 144) if multiple > 1 else (75, 101), 1, 16, 1 if "coarse" in family else 3
    )


@cache
def in_precision(made: Program, precision: str) -> Program:
    if precision == "bf16":
        return in_bf16(made)
    return made if precision == "f32" else in_int8(made, find_scales(made, moving((128, 160), 3), 0.0))


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_what_is_kept_is_what_was_computed(precision: str, program) -> None:
    """Of a still picture, places that are computed again have the answer that they had."""
    made = in_precision(program("swiftnet_nano"), precision)
    source, (image, other) = np.random.default_rng(1), moving((150, 210), 2)
    stream = Stream(made, (150, 210))
    first = stream.run(image, whole(stream), logits=True)
    for skip in (0.3, 0.5, 0.8, 0.9):
        plan = PlannedRun(np.where(source.random(stream.cells) < skip, -1, 0).astype(np.int8))
        again = stream.run(image, plan, logits=True)
        assert 0 < again.work[0] < 1
        np.testing.assert_allclose(again.logits, first.logits, rtol=1e-4, atol=1e-4)
        assert precision == "f32" or (again.logits == first.logits).all()  # f32 has several algorithms
    anew = made.run(other, PlannedRun(whole(stream).levels), logits=True)
    np.testing.assert_array_equal(stream.run(other, whole(stream), logits=True).logits, anew.logits)


def test_a_frame_that_keeps_everything_costs_nothing(program) -> None:
    stream, image = Stream(program("swiftnet_nano"), (97, 130)), moving((97, 130), 1)[0]
    first = stream.run(image, whole(stream), logits=True)
    for plan in (no_plan(stream), ReuseRun()):
        again = stream.run(image, plan, logits=True)
        assert (again.macs, again.relabelled, again.work[0]) == (0, 0, 0)
        np.testing.assert_array_equal(again.logits, first.logits)
        np.testing.assert_array_equal(again.labels, first.labels)
    assert (stream.content().age == 2).all()


def test_streams_of_one_program_do_not_disturb_one_another(program) -> None:
    made, settings = program("swiftnet_nano"), ReuseRun(0.3)
    videos = [[np.roll(frame, 9 * k, 3) for frame in moving((128, 192), 6)] for k in range(4)]

    def run(frames: list[np.ndarray]) -> list[np.ndarray]:
        stream = Stream(made, (128, 192))
        first = whole(stream).levels
        return [stream.run(frame, settings, first, threads=2, logits=True).logits for frame in frames]

    alone = [run(frames) for frames in videos]
    interleaved = [Stream(made, (128, 192)) for _ in videos]
    for k in range(6):
        for stream, frames, expected in zip(interleaved, videos, alone, strict=True):
            found = stream.run(frames[k], settings, whole(stream).levels, threads=2, logits=True)
            np.testing.assert_array_equal(found.logits, expected[k])
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(run, videos), alone, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_one_stream_in_two_threads_is_refused(program) -> None:
    stream = Stream(program("swiftnet_nano"), (256, 256))
    image, refused = moving((256, 256), 1)[0], []

    def work() -> None:
        for _ in range(20):
            try:
                stream.run(image, whole(stream))
            except ValueError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused and all("another thread" in said for said in refused)
    assert (stream.run(image, whole(stream)).labels < 5).all()


def resident() -> int:
    """Memory of this process [B]."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer keeps freed memory")
def test_memory_is_bounded_and_given_back(program) -> None:
    made, source = program("swiftnet_nano"), random.Random(0)
    stream, frames = Stream(made, (160, 192)), moving((160, 192), 10)
    size = stream.bytes

    def go(count: int) -> None:
        for k in range(count):
            plan = random_plan(source, 1, (160, 192), TILE, k % 4, 0.5).levels.numpy()
            keeps = stream.frame and k % 2
            stream.run(frames[k % 10], PlannedRun(plan if keeps else np.maximum(plan, 0)), threads=1)

    go(40)
    before = resident()
    go(200)
    assert stream.bytes == size and resident() - before < size / 4
    for _ in range(20):
        Stream(made, (512, 512)).run(
            np.zeros((1, 3, 512, 512), np.float32), PlannedRun(np.full((1, 16, 16), 2))
        )
    assert resident() - before < 40 << 20  # one of them has as much, 20 have 20 times as much
    stream.close()
    assert stream.bytes == 0
    for call in (lambda: stream.run(frames[0], whole(stream)), stream.copy, stream.content):
        with pytest.raises(ValueError, match="was closed"):
            call()
    stream.close()


def test_there_is_a_slot_for_every_cell(program) -> None:
    """Tiles of coarse levels lose their cells one by one; whatever is computed then has room."""
    source, size = random.Random(2), (160, 224)
    stream, image = Stream(program("swiftnet_nano"), size), moving((160, 224), 1)[0]
    moved = 0
    for k in range(60):
        plan = random_plan(source, 1, size, TILE, 3 if k % 5 == 0 else 0, 0.0 if k % 5 == 0 else 0.8)
        moved += stream.run(image, PlannedRun(plan.levels.numpy())).moved
        held = stream.content()
        assert len(held.image) <= 35 and len(np.unique(held.owner)) == len(held.image)
    assert moved > 0


def test_a_copy_goes_its_own_way(program) -> None:
    stream, frames = Stream(program("swiftnet_nano"), (97, 130)), moving((97, 130), 4)
    stream.run(frames[0], whole(stream))
    other = stream.copy()
    one = [stream.run(frame, ReuseRun(0.4), logits=True).logits for frame in frames[1:]]
    two = [other.run(frame, ReuseRun(0.4), logits=True).logits for frame in frames[1:]]
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_what_was_copied_out_goes_on_where_it_was(precision: str, program) -> None:
    made = in_precision(program("swiftnet_nano"), precision)
    stream, frames = Stream(made, (97, 130)), moving((97, 130), 5)
    stream.run(frames[0], whole(stream, 1))
    stream.run(frames[1], ReuseRun(0.5))
    other = Stream(made, (97, 130))
    other.restore(stream.content())
    for frame in (frames[1], *frames[2:]):
        one, two = (s.run(frame, ReuseRun(0.5), logits=True) for s in (stream, other))
        np.testing.assert_array_equal(one.labels, two.labels)
        np.testing.assert_allclose(one.logits, two.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tile", [32, 96])
def test_cells_that_do_not_change_keep_their_scores(tile: int) -> None:
    made, draw = compile_network(lively(create_model("swiftnet_nano", 5))), np.random.default_rng(0)
    size, names = (192, 320), ("weighted_entropy", "weighted_entropy", "margin", "regional_entropy")
    stream, anew = Stream(made, size, tile, 2), Stream(made, size, tile, 2)
    (ground,) = moving(size, 1, 2)
    stream.run(ground, whole(stream, 1))
    for k in range(12):  # a little is new everywhere, so that scores decide
        noise = draw.random((2, 3, 24, 40), np.float32) - 0.5
        frame = ground + 0.3 * noise.repeat(8, 2).repeat(8, 3)
        anew.restore(stream.content())
        settings = ReuseRun(0.25, names[k % len(names)], tile, unseen=0.0, hysteresis=0.0)
        one, two = stream.run(frame, settings), anew.run(frame, settings)
        np.testing.assert_array_equal(one.levels, two.levels)
        np.testing.assert_array_equal(one.labels, two.labels)
        assert one.work.min() > 0.1


@pytest.mark.parametrize(
    ("part", "at", "value"),
    [
        ("owner", (0, 0, 0), 99),
        ("owner", (0, 0, 0), -1),
        ("owner", (0, 1, 1), 0),
        ("level", 0, 8),
        ("level", 0, -1),
        ("row", 1, 1 << 40),
        ("column", 2, -1),
        ("image", 0, 1),
        ("age", (0, 0, 0), -1),
        ("picture", (0, 0, 0, 0), np.nan),
        ("logits", (0, 0, 0, 0), np.inf),
    ],
)
def test_a_damaged_content_is_refused(part: str, at: object, value: float, program) -> None:
    stream = Stream(program("swiftnet_nano"), (97, 130))
    stream.run(moving((97, 130), 1)[0], whole(stream))
    content, other = stream.content(), Stream(program("swiftnet_nano"), (97, 130))
    getattr(content, part)[at] = value
    with pytest.raises(ValueError, match="is damaged"):
        other.restore(content)
    with pytest.raises(ValueError, match="holds no frame"):
        other.content()


def test_the_content_of_another_stream_is_refused(program) -> None:
    stream = Stream(program("swiftnet_nano"), (97, 130))
    stream.run(moving((97, 130), 1)[0], whole(stream))
    for other in (
        Stream(program("swiftnet_nano"), (97, 131)),
        Stream(program("swiftnet_mobilenetv2"), (97, 130)),
        Stream(program("swiftnet_nano"), (97, 130), 64),
        Stream(in_precision(program("swiftnet_nano"), "bf16"), (97, 130)),
    ):
        with pytest.raises(ValueError, match=r"another program|other frames|tiles"):
            other.restore(stream.content())


def test_what_cannot_be_is_refused(program) -> None:
    made = program("swiftnet_nano")
    for size, tile, images in (((0, 8), 32, 1), ((8, 8), 24, 1), ((8, 8), 32, 0), ((8, 8), 1 << 40, 1)):
        with pytest.raises(ValueError, match=r"whole numbers above 0|multiple of"):
            Stream(made, size, tile, images)
    with pytest.raises(ValueError, match="too many pixels"):
        Stream(made, (40_000, 40_000))
    stream = Stream(made, (64, 96))
    image = moving((64, 96), 1)[0]
    for given, settings, says in (
        (image, no_plan(stream), "first frame computes every cell"),
        (image[:, :, 1:], whole(stream), "another size"),
        (np.repeat(image, 2, 0), whole(stream), "another size"),
        (image.astype(np.float64), whole(stream), "give float32"),
        (image, PlannedRun(np.zeros((1, 2, 2), np.int8)), "plan is"),
        (image, PlannedRun(np.array([[[0, 1, 1], [1, 1, 1]]])), "quadtree"),
        (image, PlannedRun(np.full((1, 2, 3), 9)), "-1"),
        (image, PlannedRun(np.zeros((1, 1, 2), np.int8), 64), "tiles of 64"),
        (np.full_like(image, np.nan), whole(stream), "NaN"),
    ):
        with pytest.raises(ValueError, match=says):
            stream.run(given, settings)
    with pytest.raises(ValueError, match="no such method for images"):
        made.run(image, ReuseRun())
    with pytest.raises(ValueError, match="clear must be above"):
        replace(ReuseRun(), clear=0.01)


def test_after_nan_a_stream_begins_anew(program) -> None:
    stream, (image, other) = Stream(program("swiftnet_nano"), (64, 96)), moving((64, 96), 2)
    stream.run(image, whole(stream))
    bad = other.copy()
    bad[0, 1, 20, 20] = np.nan
    with pytest.raises(ValueError, match="NaN"):  # found by the decision: nothing was begun
        stream.run(bad, ReuseRun(0.9))
    assert stream.run(image, no_plan(stream)).work[0] == 0
    with pytest.raises(ValueError, match="NaN"):
        stream.run(bad, whole(stream))
    with pytest.raises(SceneBegins):
        stream.run(image, ReuseRun(0.9))
    again = stream.run(other, ReuseRun(0.9), whole(stream).levels, logits=True)
    anew = program("swiftnet_nano").run(other, whole(stream), logits=True)
    np.testing.assert_array_equal(again.logits, anew.logits)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"method": 0}, "no such method"),
        ({"method": 9}, "no such method"),
        ({"images": 2}, "another size"),
        ({"height": 1 << 20}, "another size"),
        ({"tile": 64}, "another size"),
        ({"plan": None}, "no plan"),
        ({"plan": "levels beyond"}, "no quadtree"),
        ({"plan": "no squares"}, "no quadtree"),
        ({"plan": "half a square"}, "no quadtree"),
        ({"method": 4, "score": 9}, "score"),
        ({"method": 4, "coarse_level": 8}, "levels"),
        ({"method": 4, "gains": 9}, "score"),
    ],
)
def test_native_code_checks_what_it_is_given(fields: dict, says: str, program) -> None:
    """As Python does before it, whoever calls."""
    stream, image = Stream(program("swiftnet_nano"), (64, 96)), moving((64, 96), 1)[0]
    stream.run(image, whole(stream))
    plans = {
        "levels beyond": np.full((1, 2, 3), 100, np.int8),
        "no squares": np.array([[[0, 1, 0], [0, 0, 0]]], np.int8),
        "half a square": np.array([[[1, 0, 0], [1, 1, 0]]], np.int8),
        "all": whole(stream).levels,
    }
    request, reuse, work = Request(), Reuse(), np.zeros(2)
    request.image, request.work = image.ctypes.data, work.ctypes.data
    request.images, request.height, request.width, request.tile, request.gains = 1, 64, 96, 32, 1
    request.stride[:], request.method, reuse.max_age = [0, 64 * 96, 96, 1], 1, 1
    for name, value in {"plan": "all", **fields}.items():
        setattr(request, name, plans[value].ctypes.data if name == "plan" and value else value)
    with stream.used() as address:
        parts = address, ctypes.addressof(request), ctypes.addressof(reuse)
        assert native().foveal_stream_run(*parts) == -2
    assert says in request.error.decode()
    assert stream.run(image, no_plan(stream)).work[0] == 0  # what was held is held
