"""What frames may take: a mean over many, and a time, on a clock that is simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from conformance import make
from foveal.inference.video import Latency, LongRun, Paced, VideoFrame, segment_frames
from foveal.inference.video.pace import START
from foveal.inference.video.paced import KEPT, RUNG, rung
from foveal.methods import Prediction, Step, Trace
from foveal.tiles.memory import Memory

LIMIT, FIXED, SLOPE, FRAMES = 40.0, 5.0, 100.0, 1000

Load = Callable[[int, np.random.Generator], float]


@dataclass
class Machine:
    """A clock that work moves on, and a method that does as much as a scene asks for and a budget pays for.

    Attributes:
        demand: Share of the work that a frame asks for.
        load: How many times longer everything takes at a frame.
        noise: Deviation of the logarithm of times.
        outliers: Share of the frames that take four times as long.
        fixed: Time of a frame without work [ms].
    """

    demand: Load = lambda k, random: 1.0
    load: Load = lambda k, random: 1.0
    noise: float = 0.05
    outliers: float = 0.02
    fixed: float = FIXED
    seconds: float = 0.0
    frame: int = 0
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    least: float = 0.0

    def make(self, budget: float) -> Machine.Method:
        return Machine.Method(self, budget)

    class Method:
        def __init__(self, machine: Machine, budget: float) -> None:
            self.machine, self.budget = machine, budget

        def least_work(self, size: tuple[int, int]) -> float:
            return self.machine.least

        def __call__(self, image: Tensor, memory: Memory | None = None) -> Prediction:
            machine = self.machine
            assert self.budget >= machine.least, "pays for the cheapest plan"
            work = min(self.budget, machine.demand(machine.frame, machine.random))
            slow = machine.load(machine.frame, machine.random)
            slow *= np.exp(machine.noise * machine.random.standard_normal())
            slow *= 4 if machine.random.random() < machine.outliers else 1
            machine.seconds += (machine.fixed + SLOPE * work) * slow * (3 if not machine.frame else 1) / 1000
            machine.frame += 1
            trace = Trace((Step("network", torch.tensor([work], dtype=torch.float64)),))
            return Prediction(torch.zeros(1, 2, 4, 4), (4, 4), trace)

    def run(self, paced: Paced, frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
        """Return work and time of every frame."""
        black = np.zeros((4, 4, 3), np.uint8)
        video = (VideoFrame(black, k, k) for k in range(frames))
        found = [
            (result.work, result.ms)
            for result in segment_frames(paced, video, None, paced.took, lambda: self.seconds)
        ]
        works, times = np.array(found).T
        return works, times


STEADY = {
    "plain": Machine(),
    "exact": Machine(noise=0.0, outliers=0.0),
    "mostly fixed": Machine(fixed=20.0),
    "noisy": Machine(noise=0.15),
    "outliers": Machine(outliers=0.04),
    "slower": Machine(load=lambda k, random: 1.7 if k > 400 else 1.0),
    "faster": Machine(load=lambda k, random: 0.6 if k > 400 else 1.0),
    "drifting": Machine(load=lambda k, random: 1 + 0.5 * np.sin(k / 60)),
    "changing": Machine(load=lambda k, random: 1.7 if k // 100 % 2 else 1.0),
    "still and busy": Machine(demand=lambda k, random: 0.02 if k // 50 % 2 else 1.0),
    "varied": Machine(demand=lambda k, random: random.random()),
}


@pytest.mark.parametrize("name", STEADY)
def test_95_of_100_frames_take_the_time_that_is_given(name: str) -> None:
    machine = STEADY[name]
    works, times = machine.run(Paced(machine.make, [Latency(LIMIT)]))
    assert works[0] <= START
    assert 0.9 <= np.quantile(times, 0.95) / LIMIT <= 1.1
    if name == "exact":
        assert np.median(works) > 0.9 * (LIMIT - FIXED) / SLOPE


def test_a_still_video_says_nothing_of_the_time_of_work_and_does_not_run_away() -> None:
    machine = Machine(demand=lambda k, random: 1.0 if k >= 300 else 0.0, outliers=0.0)
    works, times = machine.run(Paced(machine.make, [Latency(LIMIT)]), 600)
    assert works[1:300].max() == 0
    assert times[300] <= 1.1 * LIMIT and np.quantile(times[300:], 0.95) <= 1.1 * LIMIT


def test_a_time_that_is_too_short_gets_the_least_and_methods_without_memory_their_cheapest_plan() -> None:
    machine = Machine(fixed=60.0)
    works, _ = machine.run(Paced(machine.make, [Latency(LIMIT)]), 60)
    assert works[5:].max() <= 0.011
    machine = Machine(fixed=60.0, least=0.2)
    works, _ = machine.run(Paced(machine.make, [Latency(LIMIT)], remembers=False), 60)
    assert works[5:].min() == works[5:].max() == 0.2


def test_the_mean_is_kept_and_still_moments_save_for_busy_ones() -> None:
    machine = Machine(demand=lambda k, random: 1.0 if k == 0 or k % 200 >= 150 else 0.01)
    works, _ = machine.run(Paced(machine.make, [LongRun(0.1)], most=0.8))
    assert works.max() <= 0.8 and works[150:200].max() > 0.5  # what 150 still frames saved
    for n in (50, 200, 1000):
        sums = np.convolve(works, np.ones(n), "valid")
        assert sums.max() <= 0.1 * n + 0.1 * 100 + 0.8 + 1e-9
    assert works[400:].mean() <= 0.1 + 1e-9 and works.mean() > 0.08


def test_always_busy_frames_have_the_mean_and_pay_a_full_first_frame_back() -> None:
    machine = Machine()
    pace = LongRun(0.2)
    pace.took(1.0, 0.0)  # a first frame in full
    assert pace.allow() == 0.1
    works, _ = machine.run(Paced(machine.make, [pace]), 400)
    assert works[:3].max() < 0.13 and works[-1] == pytest.approx(0.2, rel=RUNG - 1)
    assert (1.0 + works.sum()) / 401 <= 0.2 + 1e-9


def test_the_least_of_all_paces_counts() -> None:
    machine = Machine(noise=0.0, outliers=0.0)
    works, times = machine.run(Paced(machine.make, [Latency(LIMIT), LongRun(0.1)], most=0.9))
    assert works[100:].mean() <= 0.1 and times[1:].max() <= LIMIT


def test_budgets_are_few_and_never_above_what_is_allowed() -> None:
    shares = np.random.default_rng(0).uniform(-0.5, 1.5, 3000)
    found = {rung(float(share), 0.7) for share in shares}
    assert len(found) < 100 and min(found) == 0.01 and max(found) == 0.7
    for share in shares[(shares > 0.01) & (shares < 0.7)]:
        assert share / RUNG - 1e-6 <= rung(float(share), 0.7) <= share + 1e-9
    made: list[float] = []
    paced = Paced(lambda budget: made.append(budget) or Machine().make(budget))  # type: ignore[func-returns-value, return-value]
    for share in shares:
        paced.method(rung(float(share), 1.0))
    assert len(paced._made) <= KEPT < len(set(made))


def test_a_real_method_goes_on_whatever_its_budget() -> None:
    """The memory passes from one budget to another; nothing is asserted of the time."""
    paced = Paced(
        lambda budget: make("video_coarse_to_fine", budget=budget, first_budget=1.0), [Latency(5.0)]
    )
    pixels = np.random.default_rng(0).integers(0, 255, (20, 64, 96, 3), dtype=np.uint8)
    video = (VideoFrame(frame, k, k) for k, frame in enumerate(pixels))
    works = [result.work for result in segment_frames(paced, video, None, paced.took)]
    assert len(works) == 20 and all(0 <= work <= 1 + 1e-9 for work in works[1:])
