from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from foveal.benchmark import contenders as module
from foveal.benchmark.conclusion import conclude
from foveal.benchmark.contenders import (
    AdaptiveContender,
    Kind,
    Labeller,
    OwnContender,
    StaticContender,
    StaticRivals,
    static_labeller,
)
from foveal.benchmark.frontier import Effort, FrontierRow, measure_frontier
from foveal.benchmark.runtimes import Choice, Precision, Runtime, fold_norms
from foveal.calibration.engine import Engine, find_engine
from foveal.data.pairs import default_palette
from foveal.evaluation.metrics import Confusion
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.methods import METHODS, SegBlocksConfig
from foveal.methods.scaling import Size, shrink, shrinking_ways
from foveal.ops import classify
from foveal.storage.labels import VOID
from samples import Scenes, error_of, nano

EFFORT = Effort(timed=2, repeat=2)


@dataclass
class Fixed:
    """Says one class everywhere, and notes what it was asked."""

    name: str
    kind: Kind = "static"
    precision: Precision = "f32"
    setting: float = 1.0
    label: int = 0
    calls: int = 0
    scale: float = 1.0

    def prepare(self, size: Size) -> Labeller:
        """Say the class."""

        def run(image: Tensor) -> Tensor:
            self.calls += 1
            return torch.full((1, *size), self.label, dtype=torch.uint8)

        return Labeller(run, settings="fixed")


class Broken(Fixed):
    def prepare(self, size: Size) -> Labeller:
        raise ValueError("it is broken")


def engine_of(network) -> Engine:
    return find_engine(Model("small", network, Card("swiftnet_nano", Scenes.classes, default_palette(11))))


def rivals(network, folder: Path, calibration: tuple[Tensor, ...] = ()) -> StaticRivals:
    return StaticRivals(fold_norms(network), calibration, folder, 1)


def test_quality_is_one_confusion_matrix_over_all_images() -> None:
    scenes = Scenes(3)
    found = measure_frontier([Fixed("road", label=1), Fixed("same", "adaptive", label=1)], scenes, EFFORT)
    expected = Confusion(len(scenes.classes))
    for image, target in scenes.items:
        expected.add(torch.full(target.shape, 1), target)
        assert image.shape[1:] == target.shape
    for row in found.rows:
        assert row.miou == pytest.approx(expected.miou, abs=1e-5)
        assert row.pixel_accuracy == pytest.approx(expected.accuracy, abs=1e-5)
        assert (row.agreement, row.on_curve, row.settings) == (1, True, "fixed")
    assert (found.images, found.timed, found.size, found.left_out) == (3, 2, (48, 64), ())


def test_rows_are_timed_in_turns_while_the_machine_is_quiet() -> None:
    quiet: list[int] = []
    row = Fixed("one")

    @contextmanager
    def pause() -> Iterator[None]:
        quiet.append(row.calls)
        yield
        quiet.append(row.calls)

    measure_frontier([row], Scenes(3), replace(EFFORT, quiet=pause))
    assert quiet == [3, 3 + 1 + 2 * 2]


def test_lower_precision_is_compared_with_f32_of_its_scale() -> None:
    rows = [
        Fixed("int8", precision="int8", setting=0.5, label=2),
        Fixed("f32", setting=0.5, label=2),
        Fixed("whole", label=3),
        Fixed("ours", "adaptive", setting=0.4, label=3),
        Fixed("alone", precision="bf16", setting=0.35, label=2),
    ]
    found = measure_frontier(rows, Scenes(1), EFFORT)
    assert [row.agreement for row in found.rows] == [1, 1, 1, 1, None]


def test_what_cannot_run_is_named() -> None:
    found = measure_frontier([Broken("bad"), Fixed("good")], Scenes(1), EFFORT)
    assert [row.name for row in found.rows] == ["good"]
    assert found.left_out == ("bad in f32 at scale 1 is left out: it is broken",)
    message = error_of(lambda: measure_frontier([Broken("bad")], Scenes(1), EFFORT))
    assert message.startswith("no row can be run; the first: bad in f32")


def test_images_of_many_sizes_are_refused() -> None:
    scenes = Scenes(1)
    scenes.items = [(torch.rand(3, 8 + k, 8), torch.full((8 + k, 8), VOID)) for k in range(5)]
    assert "the images have 5 sizes" in error_of(lambda: measure_frontier([Fixed("x")], scenes, EFFORT))


@pytest.mark.parametrize("scale", [1.0, 0.75, 0.5])
def test_a_static_row_is_the_network_on_the_shrunk_image(scale: float, tmp_path: Path) -> None:
    network, image = nano(), torch.rand(1, 3, 96, 128)
    contender = StaticContender(Choice("torch", "f32"), scale, rivals(network, tmp_path))
    assert (contender.name, contender.kind, contender.precision, contender.setting) == (
        *("torch", "static", "f32"),
        scale,
    )
    labeller = contender.prepare((96, 128))
    found = labeller.run(labeller.lay(image))
    with torch.no_grad():
        sides = round(96 * scale), round(128 * scale)
        logits = network(shrink(image, sides))
        expected = F.interpolate(logits, size=(96, 128), mode="bilinear").argmax(1)
    assert (found.shape, found.dtype) == ((1, 96, 128), torch.uint8)
    assert float((found == expected).double().mean()) > (0.95 if scale == 0.5 else 0.98)


@pytest.mark.parametrize("sides", [(96, 128), (48, 64)])
def test_a_static_row_uses_the_threads_that_are_fastest(
    sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "let_threads_go", lambda: True)
    torch.set_num_threads(2)
    used: list[int] = []

    def look(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        used.append(torch.get_num_threads())
        time.sleep(0.02 if used[-1] > 1 else 0)
        return classify(logits, size)

    monkeypatch.setattr(module, "classify", look)
    network = nano()
    labeller = static_labeller(Runtime(network), torch.rand(1, 3, *sides), (96, 128))
    assert {*used} == {1, 2}, "both are tried"
    used.clear()
    labels = labeller.run(labeller.lay(torch.rand(1, 3, 96, 128)))
    assert (used, torch.get_num_threads(), labels.shape) == ([1], 2, (1, 96, 128))
    assert "labels by 1 thread" in labeller.settings
    torch.set_num_threads(before)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_our_own_static_row_is_the_network_at_that_scale(scale: float, tmp_path: Path) -> None:
    network, image = nano(), torch.rand(1, 3, 96, 128)
    own = OwnContender(engine_of(network), scale)
    assert (own.name, own.kind, own.precision, own.setting, own.scale) == (
        *("foveal", "static", "f32"),
        *(scale, scale),
    )
    other = StaticContender(Choice("torch", "f32"), scale, rivals(network, tmp_path))
    found, expected = (
        labeller.run(labeller.lay(image)) for labeller in (own.prepare((96, 128)), other.prepare((96, 128)))
    )
    assert float((found == expected).double().mean()) > 0.98


def test_all_ways_to_shrink_give_nearly_the_same_image() -> None:
    image = torch.rand(1, 3, 24, 32)
    for sides in ((12, 16), (9, 20)):
        ways = shrinking_ways((24, 32), sides)
        assert [tuple(way.run(image).shape[2:]) for way in ways] == [sides] * len(ways)
        assert len(ways) == (4 if sides == (12, 16) else 2)
    assert len({float(way.run(torch.ones(1, 3, 24, 32)).mean()) for way in ways}) == 1


def test_calibration_images_are_shrunk_like_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def prepare(choice: Choice, case: module.Case) -> module.Runtime:
        seen.append(([tuple(image.shape) for image in case.calibration], tuple(case.image.shape)))
        return module.Runtime(lambda image: torch.zeros(1, 5, 12, 16))

    monkeypatch.setattr(module, "prepare", prepare)
    shared = rivals(nano(), tmp_path, (torch.rand(1, 3, 96, 128), torch.rand(1, 3, 128, 96)))
    for precision in ("int8", "f32"):
        StaticContender(Choice("torch", precision), 0.5, shared).prepare((96, 128))
    assert seen == [([(1, 3, 48, 64)] * 2, (1, 3, 48, 64)), ([], (1, 3, 48, 64))]


@pytest.mark.parametrize("name", ["segblocks", "coarse_to_fine"])
def test_an_adaptive_row_is_the_method(name: str) -> None:
    config = METHODS[name].Config(0.6, tile=32, coarse_level=1)
    network, image = nano(), torch.rand(1, 3, 64, 96)
    contender = AdaptiveContender(name, engine_of(network), config)
    assert (contender.kind, contender.precision, contender.setting) == ("adaptive", "f32", 0.6)
    labeller = contender.prepare((64, 96))
    with torch.no_grad():
        expected = METHODS[name].from_config(network, config).eval()(image).labels
    assert float((labeller.run(labeller.lay(image)) == expected).double().mean()) > 0.999


def test_whole_frontier_of_a_small_network(tmp_path: Path) -> None:
    network, scenes = nano(len(Scenes.classes)), Scenes(2, (64, 96))
    shared = rivals(network, tmp_path)
    static = [
        StaticContender(Choice(name, "f32"), s, shared) for name in ("torch", "foveal") for s in (1, 0.5)
    ]
    ours = AdaptiveContender("segblocks", engine_of(network), SegBlocksConfig(0.6, "entropy", 32, 1, 1))
    found = measure_frontier([*static, ours], scenes, EFFORT)
    assert [(row.name, row.setting) for row in found.rows] == [
        *(("torch", 1), ("torch", 0.5), ("foveal", 1), ("foveal", 0.5), ("segblocks", 0.6)),
    ]
    with torch.no_grad():
        confusion = Confusion(len(scenes.classes))
        for image, target in scenes.items:
            confusion.add(classify(network(image[None]), (64, 96)), target[None])
    assert found.rows[0].miou == pytest.approx(confusion.miou, abs=2e-3)
    assert found.rows[2].agreement == pytest.approx(1, abs=2e-3)
    assert all(row.p95 >= row.ms > 0 for row in found.rows)
    assert found.rows[-1].on_curve


def row(kind: Kind, ms: float, miou: float) -> FrontierRow:
    return FrontierRow(kind, "x", "f32", 1.0, "", ms, ms, miou, miou, None)


def test_both_sentences_say_who_is_ahead() -> None:
    static = [row("static", 10, 0.5), row("static", 40, 0.6)]
    _, time, quality = conclude([*static, row("adaptive", 20, 0.6), row("adaptive", 5, 0.5)])
    assert "(50.0 to 60.0 mIoU) the adaptive network is 2.00x faster than the fastest static one" in time
    assert "mIoU above the best static one" in quality
    _, time, quality = conclude([*static, row("adaptive", 80, 0.6), row("adaptive", 20, 0.5)])
    assert "2.00x slower than" in time and "mIoU below" in quality
    _, time, quality = conclude([*static, row("adaptive", 80, 0.3)])
    assert time.startswith(
        "At equal quality: nothing to compare, for the best adaptive row reaches 30.0 mIoU"
    )
    assert "30.0 mIoU below" in quality
    assert conclude(static)[1] == "Equal quality: no adaptive row to compare."
