"""Experiments about the engine: borders, memory, time, training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from foveal.geometry.plan import Plan
from foveal.kernels import build as native
from foveal.methods import Dense
from foveal.ops import fetch_halo
from foveal.policies import create_policy
from foveal.tiles import TileTensor, split
from samples import Scenes, error_of, headless, nano
from studies.segblocks.engines import ENGINES, prepare_for_tiles, random_blocks
from studies.segblocks.experiments import (
    borders,
    memory,
    residual_block,
    shares,
    training_curves,
    training_speed,
)
from studies.segblocks.rows import as_keys

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

needs_kernels = pytest.mark.skipif(not native.available(), reason="no compiler")


def check_plain(rows: Sequence[DataclassInstance]) -> None:
    """See that rows are values that JSON can hold."""
    stored = [as_keys(row) for row in rows]
    assert stored and json.loads(json.dumps(stored, allow_nan=False)) == stored


def half_fine(image: Tensor) -> Plan:
    return random_blocks((image.shape[2], image.shape[3]), 64, 0.5)


def test_borders_are_compared_on_the_same_plans() -> None:
    data = Scenes(2, (64, 128))
    rows = borders.measure(headless(len(data.classes)), data, half_fine, limit=1, timed=1)
    check_plain(rows)
    assert [row.borders for row in rows] == ["dense", *(row.borders for row in borders.PAPER)]
    assert rows[0].agreement == 1 and rows[0].work == 1
    assert len({row.agreement for row in rows}) == 4
    assert all(row.ms is not None and row.ms > 0 and row.images == 1 for row in rows)
    assert {row.work for row in rows[1:]} == {0.625}


def test_at_full_resolution_only_zeros_lose_agreement() -> None:
    data, plan = Scenes(1, (64, 128)), Plan.uniform(1, (64, 128), 32)
    rows = borders.measure(headless(len(data.classes)), data, lambda image: plan, timed=0)
    agreement = {row.borders: row.agreement for row in rows}
    assert agreement["average"] == agreement["strided"] == 1 > agreement["zero"]
    assert all(row.ms is None for row in rows)


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Run what would be measured here, in this process."""
    calls: list[tuple[Any, ...]] = []

    def peak(make: Any, *arguments: Any, keep: bool) -> float:
        calls.append((arguments, make(*arguments)()))
        return 10.0 * len(calls)

    monkeypatch.setattr(memory, "peak_mb", peak)
    return calls


def test_memory_is_measured_by_batch_engine_and_policy(peaks: list[tuple[Any, ...]]) -> None:
    images = torch.rand(2, 3, 64, 64)
    policy = create_policy("detail", 0.5, 32, 1)
    rows = memory.measure(nano(), images, {"half": policy}, (1, 2))
    check_plain(rows)
    assert [(row.batch, row.engine, row.run) for row in rows] == [
        (batch, engine, run)
        for batch in (1, 2)
        for engine in ("pytorch", "native")
        for run in ("dense", "half")
    ]
    assert [row.peak_mb for row in rows] == [10.0 * k for k in range(1, 9)]
    assert [len(labels) for _, labels in peaks] == [1] * 4 + [2] * 4
    assert {row.work for row in rows if row.run == "half"} < {k / 4 for k in range(1, 4)}


def test_memory_refuses_what_it_cannot_measure() -> None:
    images = torch.rand(1, 3, 64, 64)
    assert "a batch of 4 needs as many images, given 1" in error_of(
        lambda: memory.measure(nano(), images, {}, (1, 4))
    )
    assert "no engine 'fast'; give one of pytorch, native" in error_of(
        lambda: memory.measure(nano(), images, {}, (1,), ("fast",))
    )


@needs_kernels
def test_shares_add_up_and_the_kernels_pass_no_borders() -> None:
    before = fetch_halo.backends
    image = torch.rand(1, 3, 64, 128)
    policy = create_policy("detail", 0.5, 32, 1)
    rows = shares.measure(nano(), image, policy, repeat=1)
    check_plain(rows)
    assert fetch_halo.backends == before
    for engine in ENGINES:
        ms = {row.part: row.ms for row in rows if row.engine == engine}
        assert set(ms) == {*shares.PARTS, "all"}
        assert ms.pop("all") == pytest.approx(sum(ms.values()), abs=1e-3)
        assert min(ms[part] for part in ("policy", "tables", "split", "context", "combine", "rest")) > 0
    border = {row.engine: row for row in rows if row.part == "border"}
    assert border["pytorch"].ms > 0 and not border["pytorch"].note and border["native"].note


def test_nested_operations_count_once() -> None:
    clock = shares.Clock()
    tiles = split(torch.rand(1, 3, 64, 64), random_blocks((64, 64), 32, 0.5))
    composed = clock.watch(tiles.dense)  # which borders the coarse tiles
    assert composed.shape == (1, 3, 64, 64)
    assert clock.ms["context"] > 0 and "border" not in clock.ms


def test_the_operations_are_given_back_after_an_error() -> None:
    before = fetch_halo.backends
    with pytest.raises(ZeroDivisionError):
        shares.Clock().watch(lambda: 1 // 0)
    assert fetch_halo.backends == before


@needs_kernels
@torch.inference_mode()
def test_both_engines_compute_the_same_residual_block() -> None:
    block = residual_block.ResidualBlock(16)
    joined = residual_block.joined(block)
    x = torch.randn(1, 16, 16, 32)
    torch.testing.assert_close(joined(x), block(x), rtol=1e-4, atol=1e-5)
    tiles = split(x, random_blocks((16, 32), 8, 0.5))
    found, expected = joined(tiles), block(tiles)
    assert isinstance(found, TileTensor)
    torch.testing.assert_close(found.tiles, expected.tiles, rtol=1e-4, atol=1e-5)


@needs_kernels
def test_a_residual_block_saves_the_operations_of_its_share() -> None:
    rows = residual_block.measure((16, 32), 16, (4, 8), (0.0, 1.0), (8, 0.25), repeat=1)
    check_plain(rows)
    assert [(row.sweep, row.block, row.share) for row in rows[::2]] == [
        ("block", 4, 0.25),
        ("block", 8, 0.25),
        ("share", 8, 0.0),
        ("share", 8, 1.0),
    ]
    assert [row.theoretical for row in rows[::2]] == [2.2857, 2.2857, 4.0, 1.0]
    assert {row.dense_macs for row in rows} == {2 * 9 * 16 * 16 * 16 * 32}
    for row in rows:
        assert row.speedup == pytest.approx(row.dense_ms / row.ms, rel=1e-2)
        assert row.best_speedup <= row.speedup + 1e-4


def test_blocks_are_drawn_for_every_image_and_always_alike() -> None:
    plan = random_blocks((64, 64), 16, 0.25, images=3)
    assert [float((levels == 0).double().mean()) for levels in plan.levels] == [0.25] * 3
    assert not torch.equal(plan.levels[0], plan.levels[1])
    assert torch.equal(plan.levels, random_blocks((64, 64), 16, 0.25, images=3).levels)
    assert "block is 5 and share 2" in error_of(lambda: random_blocks((64, 64), 5, 2.0))


def test_training_steps_are_timed_and_the_network_is_left_as_it_was() -> None:
    network, image = nano(3), torch.rand(2, 3, 64, 64)
    target = torch.randint(0, 3, (2, 64, 64), dtype=torch.uint8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    methods = {"own": Dense(network)}
    rows = training_speed.measure(network, (image, target), (0.5,), 64, 1, methods)
    check_plain(rows)
    assert [row.run for row in rows] == ["dense", "segblocks", "own"]
    assert [row.share for row in rows] == [1.0, 0.0, None]  # half of one block
    assert all(row.ms > 0 for row in rows) and rows[0].speedup == 1
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_step_trains_on_tiles(share: float) -> None:
    network, target = nano(3), torch.randint(0, 3, (2, 64, 64))
    image = torch.rand(2, 3, 64, 64)
    loss = training_speed.mixed_loss(prepare_for_tiles(network), (image, target), 64, share)
    with torch.inference_mode():
        training_speed.train_step(*training_speed.trained(network), loss)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


def write_log(folder: Path, losses: list[float], term: str = "segmentation") -> Path:
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": step, "policy": 9.0, term: loss}) for step, loss in enumerate(losses)]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_curves_are_means_over_stretches_of_steps(tmp_path: Path) -> None:
    runs = {"a": write_log(tmp_path / "a", [4, 2, 1, 1, 0]), "b": write_log(tmp_path / "b", [3.0], "mixed")}
    rows = training_curves.read_curves(runs, 3, {"a": 500.0})
    check_plain(rows)
    assert [(row.run, row.step, row.loss, row.seconds) for row in rows] == [
        ("a", 2, 3, 1),
        ("a", 4, 1, 2),
        ("a", 5, 0, 2.5),
        ("b", 1, 3, None),
    ]
    assert training_curves.steps_needed(rows, 1.0) == {"a": 4, "b": None}


def test_runs_without_a_log_or_a_loss_are_refused(tmp_path: Path) -> None:
    curves = training_curves.read_curves
    assert "log.jsonl does not exist" in error_of(lambda: curves({"a": tmp_path}))
    odd = write_log(tmp_path / "odd", [1.0], "l2")
    assert "has the terms step, policy, l2; one of segmentation, mixed" in error_of(
        lambda: curves({"a": odd})
    )


def test_curves_are_summed_up() -> None:
    rows = [
        training_curves.CurveRow(name, step, top / step, None)
        for name, top in (("a", 4.0), ("b", 8.0))
        for step in (1, 4)
    ]
    first, second = training_curves.summary(rows)
    assert first.loss_at_the_end == 2.5 and second.loss_at_the_end == 5.0
    assert first.worst_loss_at_an_end == second.worst_loss_at_an_end == 5.0
    assert first.steps_to_that_loss == 1 and second.steps_to_that_loss == 4
    assert first.steps == second.steps == 4


def test_everything_can_be_drawn(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    rules = [
        borders.BorderRow(borders=name, miou=0.7, agreement=0.9, work=0.6, ms=2.0, images=1)
        for name in ("dense", "average", "strided", "zero")
    ]
    peaks = [memory.MemoryRow("native", row.run, row.batch, 0.5, row.peak_mb) for row in memory.PAPER]
    parts = [
        shares.ShareRow(engine="native", part=part, ms=2.0, share=0.5, work=0.6, note="")
        for part in shares.PARTS
    ]
    steps = [
        training_speed.StepRow(run=run, share=0.5, work=0.6, ms=2.0, p95=2.0, speedup=1.0)
        for run in ("dense", "segblocks")
    ]
    speeds = {
        "theoretical": 1.6,
        "speedup": 1.2,
        "best_speedup": 1.1,
        "eta": 0.75,
        "dense_macs": 8,
        "macs": 5,
    }
    points = [
        residual_block.ResidualRow(
            sweep=sweep, block=8, engine="native", tile=4, share=0.5, dense_ms=2.4, ms=2.0, **speeds
        )
        for sweep in ("block", "share")
    ]
    curves = [training_curves.CurveRow("a", 1, 2.0, None), training_curves.CurveRow("b", 1, 2.0, 3.0)]
    drawn: list[tuple[Any, Sequence[object]]] = [
        (borders.draw, rules),
        (memory.draw, peaks),
        (shares.draw, parts),
        (training_speed.draw, steps),
        (training_curves.draw, curves),
        (lambda rows, axes: training_curves.draw(rows, axes, "seconds"), curves),
        (residual_block.draw_blocks, points),
        (residual_block.draw_shares, points),
    ]
    for draw, rows in drawn:
        axes = Figure().subplots()
        draw(rows, axes)
        assert axes.get_xlabel() and (axes.lines or axes.patches)
        axes.figure.savefig(tmp_path / "figure.png")
