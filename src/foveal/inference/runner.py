"""One trained network and one method on images of any size."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foveal.calibration.engine import Engine
from foveal.calibration.latency import Report, Setup, on_tiles, silent
from foveal.calibration.profile import Risk
from foveal.calibration.selector import BudgetSelector, Choice
from foveal.cost import MacsByPlan, Timer, Timing, alternate, count_macs
from foveal.inference.result import Result
from foveal.methods import AdaptiveSegmenter, MethodConfig, Prediction, Resources, Step
from foveal.ops import upsample


class Runner:
    """Segments images one by one, with the dense network where tiles cannot pay (law 12).

    With a latency, the budget for every size of image is the largest that fits it, by a cost model of this
    machine that is measured if there is none. Without one, a cost model is used if it is there: where it
    predicts no gain, the dense network runs.

    Args:
        engine: What runs a trained network.
        method: Name in `foveal.methods.METHODS`.
        asked: Settings of the method; their budget does not count with a latency. Or a disagreement with the
            dense network to tolerate, and what keeps it.
        latency: Time that an image may take [ms], the labels included.
        always_adapt: Whether the method runs also where the cost model predicts no gain.
        report: Called with what is done before it takes time.

    Raises:
        ValueError: No method of that name, or something that is asked for does not fit it.

    Attributes:
        model: The trained network.
        timer: Takes the times of comparisons; another may be put in its place.
    """

    timer: Timer = staticmethod(alternate)

    def __init__(
        self,
        engine: Engine,
        method: str,
        asked: MethodConfig | Risk,
        latency: float | None = None,
        always_adapt: bool = False,
        report: Report = silent,
    ) -> None:
        model = engine.model
        self.model, self.risk = model, asked if isinstance(asked, Risk) else None
        config = asked.config if isinstance(asked, Risk) else asked
        self._outline = copy.deepcopy(model.network).to("meta")
        self._dense_macs: dict[tuple[int, int], int] = {}
        self._macs = MacsByPlan(_passes)
        self._dense = engine.dense()
        resources = Resources(policy_network=model.policy)
        engine.make(method, config, resources)
        self.setup = Setup(engine, method, config, resources)
        self._choose = BudgetSelector(self.setup, latency, always_adapt, report)
        self._choose.setting = self.risk.setting if self.risk else None

    def __call__(self, image: Tensor, repeat: int = 0) -> Result:
        """Segment one image [3, H, W] in 0..1.

        Args:
            image: The image.
            repeat: Timed rounds, dense and adaptive in turns; 0 compares nothing.

        Raises:
            ValueError: The budget does not pay for the cheapest plan, or nothing is as fast as the latency.
        """
        batch = image[None].to(memory_format=torch.channels_last)
        size = (image.shape[1], image.shape[2])
        choice = self._choose(size)
        method = self._dense if choice.reason else self.setup.make(choice.budget)
        run = self._macs.run(partial(self._timed, method, batch), batch.shape)
        prediction, ms = run.value
        counted = run.observed
        if counted and choice.latency is not None and not repeat:
            with torch.inference_mode():
                (prediction, ms), counted = self._timed(method, batch), False
        steps = prediction.trace.steps
        result = Result(
            image=image,
            labels=prediction.labels[0],
            plans=tuple(step.plan for step in steps if step.plan is not None),
            work=float(prediction.trace.work[0]),
            macs=run.macs,
            dense_macs=self.dense_macs(size),
            timing=Timing((ms,)),
            choice=choice,
            risk=self.risk,
            estimate=self._estimate(batch, prediction, choice),
            counted=counted,
        )
        return self._compare(result, batch, repeat) if repeat else result

    def dense_macs(self, size: tuple[int, int]) -> int:
        """Count the MACs of the dense network at a size [px], up to the labels, without running it."""
        if size not in self._dense_macs:
            channels = getattr(self._outline, "in_channels", 3)
            empty = torch.empty(1, channels, *size, device="meta")
            self._dense_macs[size] = count_macs(lambda: upsample(self._outline(empty), size)).total
        return self._dense_macs[size]

    def _estimate(self, batch: Tensor, prediction: Prediction, choice: Choice) -> float | None:
        """Estimate the disagreement with the dense network from the gain that is left."""
        if self.risk is None or choice.reason:
            return None if self.risk is None else 0.0
        method = self.setup.make(choice.budget)
        with torch.inference_mode():
            left = method.remaining_gain(batch, prediction)
        return self.risk.profile.risk.estimate(float(left[0]))

    def _timed(self, method: AdaptiveSegmenter, batch: Tensor) -> tuple[Prediction, float]:
        """Run the method or the dense network up to the labels, and take the time [ms]."""
        start = time.perf_counter()
        with on_tiles(self.model.name), torch.no_grad():
            prediction = method(batch)
        _ = prediction.labels
        return prediction, 1000 * (time.perf_counter() - start)

    def _compare(self, result: Result, batch: Tensor, repeat: int) -> Result:
        """Time the method and the dense network in turns, and keep the dense labels.

        A method that the cost model overruled is timed as well: that is what a comparison is for.
        """

        def dense_labels() -> Tensor:
            return self._dense(batch).labels

        runs: dict[str, Callable[[], Any]] = {"dense": dense_labels}
        if not result.reason or result.choice.overruled:
            method = self.setup.make(result.choice.budget)
            runs["method"] = lambda: method(batch).labels
        with on_tiles(self.model.name):
            times = self.timer(runs, repeat, 1)
        with torch.inference_mode():
            labels = result.labels if result.reason else dense_labels()[0]
        dense, ours = times["dense"], times.get("method")
        chosen = dense if result.reason or ours is None else ours
        unchosen = ours if result.reason else None
        return replace(result, timing=chosen, dense_timing=dense, method_timing=unchosen, dense_labels=labels)


def _passes(run: tuple[Prediction, float]) -> Sequence[Step]:
    """Return the passes of a timed run."""
    return run[0].trace.steps
