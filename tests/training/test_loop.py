from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import forked
from foveal.data.augmentation import Augment
from foveal.data.batches import Batches
from foveal.methods import Aim, Dense, SegBlocks, TrainableSegmenter
from foveal.models import create_model
from foveal.policies import RandomPlans
from foveal.training.loop import CHECKPOINT, Diverged, Schedule, resumed_step, train
from samples import Scenes, headless

STEPS, SAVE_EVERY = 7, 3
CLASSES = len(Scenes.classes)


class Killed(Exception):
    """Stands for whatever ends a run."""


def dense() -> TrainableSegmenter:
    torch.manual_seed(5)
    network = create_model("swiftnet_nano", CLASSES).to(memory_format=torch.channels_last)
    return Dense(network, Aim(torch.rand(CLASSES), hardest=0.5))


def with_dropout() -> TrainableSegmenter:
    torch.manual_seed(5)
    return Dense(headless(CLASSES, dropout=0.3))


def mixed() -> TrainableSegmenter:
    torch.manual_seed(5)
    network = create_model("swiftnet_nano", CLASSES).to(memory_format=torch.channels_last)
    return SegBlocks(network, RandomPlans((32,), 1, (0.3, 0.7)), consistency=1.0)


METHODS: dict[str, Callable[[], TrainableSegmenter]] = {
    "dense": dense,
    "with_dropout": with_dropout,
    "mixed": mixed,
}


def batches() -> Batches:
    return Batches(Scenes(3), Augment((32, 32)), 2, seed=1, extra=Scenes(2, (36, 40)), extra_share=0.4)


def start(name: str, run: Path, kill_at: int | None = None, steps: int = STEPS) -> nn.Module:
    """Train from the start or the checkpoint of a run; die after a step, before it is saved."""

    def report(step: int, values: dict[str, float]) -> None:
        if step == kill_at:
            raise Killed

    torch.set_num_threads(1)
    schedule = Schedule(steps, 1e-2, warmup=3, average=0.6, save_every=SAVE_EVERY, seed=2)
    return train(METHODS[name](), batches(), schedule, run, report=report)


def run_slowly(name: str, run: str) -> None:
    """Train and say on stdout which step was done; for another process, which is killed."""
    schedule = Schedule(STEPS, 1e-2, warmup=3, average=0.6, save_every=SAVE_EVERY, seed=2)
    torch.set_num_threads(1)
    sys.modules["torch.utils.tensorboard"] = None  # type: ignore[assignment]
    train(METHODS[name](), batches(), schedule, Path(run), report=lambda step, _: os.write(1, b"%d\n" % step))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Tensor]]:
    """Give the last checkpoint of a run that was not interrupted."""
    known: dict[str, dict[str, Tensor]] = {}

    def checkpoint(name: str) -> dict[str, Tensor]:
        if name not in known:
            run = tmp_path_factory.mktemp(name)
            start(name, run)
            known[name] = load_file(run / CHECKPOINT)
        return known[name]

    return checkpoint


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


# Runs that end early


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        *[("with_dropout", kills) for kills in ([0], [2], [3], [5], [6], [4, 3, 6], [1, 1])],
        *[(name, kills) for name in ("dense", "mixed") for kills in ([1], [4])],
    ],
)
def test_a_run_that_was_killed_ends_like_one_that_was_not(
    name: str, kills: list[int], tmp_path: Path, whole: Callable[[str], dict[str, Tensor]]
) -> None:
    for kill_at in kills:
        with pytest.raises(Killed):
            start(name, tmp_path, kill_at)
        assert resumed_step(tmp_path) in (kill_at // SAVE_EVERY * SAVE_EVERY, SAVE_EVERY)
    network = start(name, tmp_path)
    assert_same(load_file(tmp_path / CHECKPOINT), whole(name))
    average = {key: value for key, value in whole(name).items() if key.startswith("average.")}
    assert_same({f"average.network.{key}": value for key, value in network.state_dict().items()}, average)
    assert not network.training
    assert [path.name for path in tmp_path.glob(".*part*")] == []


def test_a_run_survives_kill_9(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, whole: Callable[[str], dict[str, Tensor]]
) -> None:
    process = forked.start(tmp_path_factory.mktemp("said"), run_slowly, "mixed", str(tmp_path))
    try:
        while process.returncode is None and "4\n" not in process.stdout:
            time.sleep(0.001)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert resumed_step(tmp_path) in (SAVE_EVERY, 2 * SAVE_EVERY)
    start("mixed", tmp_path)
    assert_same(load_file(tmp_path / CHECKPOINT), whole("mixed"))


def test_what_a_kill_during_saving_leaves_does_no_harm(
    tmp_path: Path, whole: Callable[[str], dict[str, Tensor]]
) -> None:
    with pytest.raises(Killed):
        start("with_dropout", tmp_path, kill_at=4)
    (tmp_path / ".checkpoint.part.safetensors").write_bytes(b"half of a checkpo")
    start("with_dropout", tmp_path)
    assert_same(load_file(tmp_path / CHECKPOINT), whole("with_dropout"))
    assert list(tmp_path.glob(".*part*")) == []


def test_a_run_that_is_done_is_not_trained_further(
    tmp_path: Path, whole: Callable[[str], dict[str, Tensor]]
) -> None:
    start("with_dropout", tmp_path)
    steps: list[int] = []
    schedule = Schedule(STEPS, save_every=SAVE_EVERY)
    train(with_dropout(), batches(), schedule, tmp_path, report=lambda step, _: steps.append(step))
    assert steps == []
    assert_same(load_file(tmp_path / CHECKPOINT), whole("with_dropout"))


def test_another_seed_gives_another_run(tmp_path: Path, whole: Callable[[str], dict[str, Tensor]]) -> None:
    schedule = Schedule(STEPS, 1e-2, warmup=3, average=0.6, save_every=SAVE_EVERY, seed=3)
    train(with_dropout(), batches(), schedule, tmp_path)
    weights = load_file(tmp_path / CHECKPOINT)
    assert not torch.equal(weights["network.0.weight"], whole("with_dropout")["network.0.weight"])


# Runs that diverge


class Poisoned(Dense):
    """Has a loss of NaN, or finite with a gradient of NaN, from a step on."""

    at, poison, steps = 4, "loss", 0

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        terms = super().loss(image, target)
        if self.steps >= self.at:
            zero = sum((p * 0).sum() for p in self.parameters())
            terms["poison"] = zero / 0 if self.poison == "loss" else zero.square().sqrt()
        self.steps += 1
        return terms


@pytest.mark.parametrize("poison", ["loss", "gradient"])
@pytest.mark.parametrize("at", [2, 4, 5])
def test_a_diverged_run_keeps_its_last_good_checkpoint(poison: str, at: int, tmp_path: Path) -> None:
    method = Poisoned(headless(CLASSES))
    method.poison, method.at = poison, at
    with pytest.raises(Diverged, match=r"step \d: .*not finite|step \d: the loss is nan") as error:
        train(method, batches(), Schedule(9, save_every=SAVE_EVERY), tmp_path)
    kept = at // SAVE_EVERY * SAVE_EVERY
    left = f"{CHECKPOINT} of step {kept} is kept" if kept else "no checkpoint was written before"
    assert left in str(error.value)
    assert resumed_step(tmp_path) == kept
    if at >= SAVE_EVERY:
        assert all(bool(value.isfinite().all()) for value in load_file(tmp_path / CHECKPOINT).values())


# Learning


def test_the_loss_falls(tmp_path: Path) -> None:
    losses: list[float] = []
    data = Batches(Scenes(3), Augment((48, 64), (0.9, 1.1)), 3, seed=1)
    schedule = Schedule(25, 1e-2, encoder_factor=1.0, warmup=3, average=0.9)
    method = dense()
    method.hardest = 1.0
    train(method, data, schedule, tmp_path, report=lambda _, values: losses.append(values["segmentation"]))
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_the_average_follows_the_weights(tmp_path: Path) -> None:
    method = with_dropout()
    before = method.network[0].weight.detach().clone()
    network = train(method, batches(), Schedule(1, 1e-2, warmup=1, average=0.6), tmp_path)
    stored = load_file(tmp_path / CHECKPOINT)
    after = stored["network.0.weight"]
    assert not torch.equal(after, before)
    torch.testing.assert_close(network[0].weight.detach(), 0.1 * before + 0.9 * after)


def test_frozen_norms_keep_their_statistics_but_learn_their_scale(tmp_path: Path) -> None:
    method = with_dropout()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    train(method, batches(), Schedule(3, 1e-2, warmup=1, average=0.0, freeze_norms=True), tmp_path)
    after = method.state_dict()
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(after[f"network.1.{key}"], before[f"network.1.{key}"])
    assert not torch.equal(after["network.1.weight"], before["network.1.weight"])


def test_weights_decay_but_not_norms_and_biases(tmp_path: Path) -> None:
    before = {key: value.detach().clone() for key, value in with_dropout().network.named_parameters()}
    after = []
    for decay in (0.0, 0.5):
        schedule = Schedule(1, 1e-2, weight_decay=decay, warmup=1)
        train(with_dropout(), batches(), schedule, tmp_path / str(decay))
        after.append(load_file(tmp_path / str(decay) / CHECKPOINT))
    for key, value in before.items():
        shrunk = 1e-2 * 0.5 * value if value.ndim > 1 else torch.zeros_like(value)
        found = after[0][f"network.{key}"] - after[1][f"network.{key}"]
        torch.testing.assert_close(found, shrunk, rtol=0, atol=1e-6)


def test_the_encoder_learns_slower(tmp_path: Path) -> None:
    """The first step of AdamW moves every weight by the learning rate, whatever its gradient."""
    method = dense()
    before = {key: value.detach().clone() for key, value in method.network.named_parameters()}
    schedule = Schedule(1, 1e-3, encoder_factor=0.25, weight_decay=0.0, warmup=1, average=0.0)
    train(method, batches(), schedule, tmp_path)
    stored = load_file(tmp_path / CHECKPOINT)
    moved = {key: (stored[f"network.{key}"] - value).abs().max().item() for key, value in before.items()}
    for key, largest in moved.items():
        factor = 0.25 if key.startswith("encoder.") else 1.0
        assert largest == pytest.approx(factor * 1e-3, rel=0.02), key


def test_the_rate_rises_linearly_then_falls_to_a_hundredth() -> None:
    schedule = Schedule(1000, 1e-3, warmup=100)
    rates = [schedule.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[49] == pytest.approx(0.5e-3, rel=0.01)
    assert max(rates) == pytest.approx(1e-3, rel=0.05)
    assert rates.index(max(rates)) in range(95, 105)
    assert all(later < earlier for earlier, later in pairwise(rates[100:]))
    assert rates[-1] == pytest.approx(1e-5, rel=0.01)
    assert Schedule(10, 1.0, warmup=0).rate(0) == 1.0


# What a run leaves


def test_every_step_is_logged(tmp_path: Path) -> None:
    start("mixed", tmp_path, steps=2)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    assert set(rows[0]) == {"step", "dense", "mixed", "consistency", "learning_rate"}


def test_training_works_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    start("with_dropout", tmp_path, steps=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", CHECKPOINT, "log.jsonl"]


def test_tensorboard_gets_events_if_it_is_there(tmp_path: Path) -> None:
    pytest.importorskip("torch.utils.tensorboard")
    start("with_dropout", tmp_path, steps=2)
    assert [path.stat().st_size > 100 for path in (tmp_path / "tensorboard").iterdir()] == [True]


def test_a_folder_without_checkpoint_starts_at_step_0(tmp_path: Path) -> None:
    assert resumed_step(tmp_path) == 0
    assert resumed_step(tmp_path / "missing") == 0
