"""The loop over images: one trained network, one method, any number of files."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from foveal.calibration.latency import Report, Setup, on_tiles, silent
from foveal.calibration.profile import Risk
from foveal.calibration.selector import BudgetSelector, Choice
from foveal.cost import Timing, alternate, count_macs
from foveal.data.image import read_image
from foveal.fusion import faster
from foveal.geometry.plan import Plan, overlay
from foveal.hub.checkpoint import Model
from foveal.methods import METHODS, AdaptiveSegmenter, Dense, MethodConfig, Prediction, Resources
from foveal.ops import upsample
from foveal.storage.names import find


@dataclass(frozen=True)
class Result:
    """What a network says about one image, and what it cost.

    Attributes:
        image: [3, H, W] in 0..1.
        labels: Class per pixel [H, W], uint8.
        plans: Which tiles ran, pass by pass; none if the dense network ran.
        work: Share of the dense work, the decision included.
        macs: Multiply-accumulates that ran [MAC].
        dense_macs: Those of the dense network [MAC].
        timing: Wall time up to the labels [ms]; without a comparison that of the one run in which the MACs
            are counted, which is somewhat slower; with a latency that of another run after it.
        dense_timing: That of the dense network, measured in turns with it; None without a comparison.
        dense_labels: Labels of the dense network [H, W]; None without a comparison.
        method_timing: That of the method where the cost model chose the dense network; None else, and without
            a comparison.
        choice: What was chosen to run, and why.
        risk: What was tolerated, and the setting that keeps it; None if a budget or latency was given.
        estimate: Estimated class-balanced disagreement with the dense network, a share; None without a risk.
    """

    image: Tensor
    labels: Tensor
    plans: tuple[Plan, ...]
    work: float
    macs: int
    dense_macs: int
    timing: Timing
    dense_timing: Timing | None = None
    dense_labels: Tensor | None = None
    method_timing: Timing | None = None
    choice: Choice = field(default_factory=Choice)
    risk: Risk | None = None
    estimate: float | None = None

    @property
    def reason(self) -> str:
        """Why the dense network ran; empty if it did not."""
        return self.choice.reason

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image [px]."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def tile(self) -> int:
        """Side of a cell of `levels` [px]."""
        return self.plans[0].tile if self.plans else max(self.size)

    @cached_property
    def levels(self) -> Tensor:
        """Level [Gh, Gw] that the answer comes from, per cell: what a later pass skips stays as it was."""
        if not self.plans:
            return torch.zeros(1, 1, dtype=torch.int8)
        return overlay(self.plans)[0]

    @property
    def agreement(self) -> float | None:
        """Share of the pixels with the dense network's label; None without a comparison."""
        return (
            None if self.dense_labels is None else float((self.dense_labels == self.labels).double().mean())
        )


class Runner:
    """Segments images one by one, with the dense network where tiles cannot pay (law 12).

    With a latency, the budget for every size of image is the largest that fits it, by a cost model of this
    machine that is measured if there is none. Without one, a cost model is used if it is there: where it
    predicts no gain, the dense network runs.

    Args:
        model: The trained network.
        method: Name in `foveal.methods.METHODS`.
        asked: Settings of the method; their budget does not count with a latency. Or a disagreement with the
            dense network to tolerate, and what keeps it.
        latency: Time that an image may take [ms], the labels included.
        always_adapt: Whether the method runs also where the cost model predicts no gain.
        report: Called with what is done before it takes time.

    Raises:
        ValueError: No method of that name, or something that is asked for does not fit it.
    """

    def __init__(
        self,
        model: Model,
        method: str,
        asked: MethodConfig | Risk,
        latency: float | None = None,
        always_adapt: bool = False,
        report: Report = silent,
    ) -> None:
        self.model, self.risk = model, asked if isinstance(asked, Risk) else None
        config = asked.config if isinstance(asked, Risk) else asked
        self._outline = copy.deepcopy(model.network).to("meta")
        self._dense_macs: dict[tuple[int, int], int] = {}
        network = faster(model.network)
        self._dense = Dense(network).eval()
        resources = Resources(policy_network=model.policy)
        find(method, METHODS, "method").from_config(network, config, resources)
        self.setup = Setup(model.name, model.network, network, method, config, resources)
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
        prediction, ms, macs = self._run(choice, batch, counted=choice.latency is None or repeat > 0)
        steps = prediction.trace.steps
        result = Result(
            image=image,
            labels=prediction.labels[0],
            plans=tuple(step.plan for step in steps if step.plan is not None),
            work=float(prediction.trace.work[0]),
            macs=macs,
            dense_macs=self.dense_macs(size),
            timing=Timing((ms,)),
            choice=choice,
            risk=self.risk,
            estimate=self._estimate(batch, prediction, choice),
        )
        return self._compare(result, batch, repeat) if repeat else result

    def dense_macs(self, size: tuple[int, int]) -> int:
        """Count the MACs of the dense network at a size [px], up to the labels, without running it."""
        if size not in self._dense_macs:
            empty = torch.empty(1, 3, *size, device="meta")
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

    def _run(self, choice: Choice, batch: Tensor, counted: bool) -> tuple[Prediction, float, int]:
        """Run what was chosen; return what it says, its time [ms] and MACs.

        The time is that of the counted run, or of another one after it: counting takes time, and so does
        whatever a network does on its first run only.
        """
        method = self._dense if choice.reason else self.setup.make(choice.budget)
        runs: list[tuple[Prediction, float]] = []
        macs = count_macs(lambda: runs.append(self._timed(method, batch))).total
        if not counted:
            with torch.inference_mode():
                runs.append(self._timed(method, batch))
        return *runs[-1], macs

    def _timed(self, method: AdaptiveSegmenter, batch: Tensor) -> tuple[Prediction, float]:
        """Run the method or the dense network up to the labels, and take the time [ms]."""
        start = time.perf_counter()
        with on_tiles(self.model.name):
            prediction = method(batch)
        _ = prediction.labels
        return prediction, 1000 * (time.perf_counter() - start)

    def _compare(self, result: Result, batch: Tensor, repeat: int) -> Result:
        """Time the method and the dense network in turns, and keep the dense labels.

        A method that the cost model overruled is timed as well: that is what a comparison is for.
        """
        runs = {"dense": lambda: self._dense(batch).labels}
        if not result.reason or result.choice.overruled:
            method = self.setup.make(result.choice.budget)
            runs["method"] = lambda: method(batch).labels
        with on_tiles(self.model.name):
            times = alternate(runs, repeat, warmup=1)
        with torch.inference_mode():
            labels = result.labels if result.reason else runs["dense"]()[0]
        dense, ours = times["dense"], times.get("method")
        chosen = dense if result.reason or ours is None else ours
        unchosen = ours if result.reason else None
        return replace(result, timing=chosen, dense_timing=dense, method_timing=unchosen, dense_labels=labels)


def segment_files(
    runner: Runner, paths: Iterable[Path], repeat: int = 0
) -> Iterator[tuple[Path, Result | ValueError | OSError]]:
    """Segment files one after the other; one that cannot be is given back as its error."""
    for path in paths:
        try:
            yield path, runner(read_image(path), repeat)
        except (ValueError, OSError) as error:
            yield path, error
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
                raise
            yield path, ValueError(f"{path} is too large for the memory of this machine; reduce the image")
