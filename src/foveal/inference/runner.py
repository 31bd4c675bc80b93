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

from foveal.calibration.configure import Chosen
from foveal.calibration.engine import Engine
from foveal.calibration.latency import Report, Setup, on_tiles, silent
from foveal.calibration.profile import Risk
from foveal.calibration.selector import BudgetSelector, Choice
from foveal.cost import MacsByPlan, Timer, Timing, alternate, count_macs
from foveal.geometry.mask import Mask, read_mask
from foveal.geometry.plan import SKIP, grid
from foveal.inference.result import Result
from foveal.methods import MethodConfig, Prediction, Step
from foveal.ops import upsample
from foveal.storage.labels import VOID

Run = Callable[[], Prediction]


class Runner:
    """Segments images one by one, with the dense network where tiles cannot pay (law 12).

    With a latency, the budget for every size of image is the largest that fits it, by a cost model of this
    machine that is measured if there is none. Without one, a cost model is used if it is there: where it
    predicts no gain, the dense network runs.

    Args:
        engine: What runs a trained network.
        method: Name in `foveal.methods.METHODS`.
        asked: Settings of the method; their budget does not count with a latency. Or a disagreement with the
            dense network to tolerate, and what keeps it; or settings with who chose them.
        latency: Time that an image may take [ms], the labels included.
        always_adapt: Whether the method runs also where the cost model predicts no gain.
        report: Called with what is done before it takes time.

    Raises:
        ValueError: No method of that name, or something that is asked for does not fit it.

    Attributes:
        model: The trained network.
        timer: Takes the times of comparisons; another may be put in its place.
        mask_share: Under a mask a cell is computed if more than this share of its pixels is wanted; the same.
    """

    timer: Timer = staticmethod(alternate)

    def __init__(
        self,
        engine: Engine,
        method: str,
        asked: MethodConfig | Risk | Chosen,
        latency: float | None = None,
        always_adapt: bool = False,
        report: Report = silent,
    ) -> None:
        model = engine.model
        self.model, self.risk = model, asked if isinstance(asked, Risk) else None
        config = asked if isinstance(asked, MethodConfig) else asked.config
        self._outline = copy.deepcopy(model.network).to("meta")
        self._dense_macs: dict[tuple[int, int], int] = {}
        self._macs = MacsByPlan(_passes)
        self._dense = engine.dense()
        resources = model.resources
        engine.make(method, config, resources)
        self.setup = Setup(engine, method, config, resources)
        self.mask_share, self._report = 0.0, report
        self._whole = self.setup.make_dense()
        self._choose = BudgetSelector(self.setup, latency, always_adapt, report)
        self._choose.setting = self.risk.setting if self.risk else None
        self._why = ""
        if isinstance(asked, Chosen):
            self._why, self._choose.most = asked.why, asked.most

    def __call__(self, image: Tensor, repeat: int = 0, wanted: Tensor | None = None) -> Result:
        """Segment one image [C, H, W] in 0..1.

        Args:
            image: The image.
            repeat: Timed rounds, dense and adaptive in turns; 0 compares nothing.
            wanted: Pixels that get a label [H, W], bool; the others cost nothing. All if absent.

        Raises:
            ValueError: The budget does not pay for the cheapest plan, nothing is as fast as the latency, or
                the mask has another size.
        """
        batch = image[None].to(memory_format=torch.channels_last)
        size = (image.shape[1], image.shape[2])
        mask = None if wanted is None else read_mask(wanted, batch, size, self.setup.tile, self.mask_share)
        choice = self._choose.for_image(image, self.risk.draw if self.risk else None)
        if mask is not None and self.setup.instead:
            choice = replace(choice, reason=self.setup.instead)
            self._report(choice.reason)
            self._report = silent  # said once
        if mask is not None and not bool(mask.cells.any()):
            return self._nothing(image, mask, choice)
        run = self._run_of(choice, batch, mask)
        prediction, ms, macs, counted = self._counted(run, batch, mask)
        if counted and choice.latency is not None and not repeat:
            with torch.inference_mode():
                (prediction, ms), counted = self._timed(run), False
        result = Result(
            image=image,
            labels=_only(prediction.labels[0], mask),
            cells=_cells(prediction, mask, size, self.setup.tile),
            cell=self.setup.tile,
            work=float(prediction.trace.work[0]),
            macs=macs,
            dense_macs=self.dense_macs(size),
            timing=Timing((ms,)),
            choice=choice,
            risk=self.risk,
            estimate=self._estimate(batch, prediction, choice),
            counted=counted,
            scale=prediction.trace.scale,
            chosen=self._why,
            route=next(iter(prediction.trace.routes), None),
        )
        return self._compare(result, batch, repeat, mask) if repeat else result

    def _run_of(self, choice: Choice, batch: Tensor, mask: Mask | None) -> Run:
        """Return what answers: the method or the dense network, or what leaves out what is not wanted."""
        if mask is not None:
            method = self.setup.make_for_mask(choice.budget, bool(choice.reason))
            return partial(method.masked, batch, mask.cells)
        return partial(self._whole if choice.reason else self.setup.make(choice.budget), batch)

    def _counted(self, run: Run, batch: Tensor, mask: Mask | None) -> tuple[Prediction, float, int, bool]:
        """Run once; return the answer, its time [ms], its MACs, and whether counting made it slower."""
        if mask is None:
            found = self._macs.run(partial(self._timed, run), batch.shape)
            return *found.value, found.macs, found.observed
        answers: list[tuple[Prediction, float]] = []  # what a mask leaves out is in no plan of a program
        macs = count_macs(lambda: answers.append(self._timed(run))).total
        return *answers[0], macs, True

    def _nothing(self, image: Tensor, mask: Mask, choice: Choice) -> Result:
        """Say that nothing was computed, for a mask that wants nothing."""
        labels = torch.full(image.shape[1:], VOID, dtype=torch.uint8)
        cells = torch.full(mask.cells.shape[1:], SKIP, dtype=torch.int8)
        size = (image.shape[1], image.shape[2])
        return Result(
            image,
            labels,
            cells,
            self.setup.tile,
            0.0,
            0,
            self.dense_macs(size),
            Timing((0.0,)),
            choice=choice,
        )

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

    def _timed(self, run: Run) -> tuple[Prediction, float]:
        """Run the method or the dense network up to the labels, and take the time [ms]."""
        start = time.perf_counter()
        with on_tiles(self.model.name), torch.no_grad():
            prediction = run()
        _ = prediction.labels
        return prediction, 1000 * (time.perf_counter() - start)

    def _compare(self, result: Result, batch: Tensor, repeat: int, mask: Mask | None) -> Result:
        """Time the method and the dense network in turns, and keep the dense labels.

        A method that the cost model overruled is timed as well: that is what a comparison is for.
        """

        def dense_labels() -> Tensor:
            return self._dense(batch).labels

        runs: dict[str, Callable[[], Any]] = {"dense": dense_labels}
        shrunk = result.scale < 1
        alone = bool(result.reason) and mask is None and not shrunk
        if not alone or result.choice.overruled:
            method = self._run_of(result.choice if shrunk else replace(result.choice, reason=""), batch, mask)
            runs["method"] = lambda: method().labels
        with on_tiles(self.model.name):
            times = self.timer(runs, repeat, 1)
        with torch.inference_mode():
            labels = result.labels if alone else dense_labels()[0]
        dense, ours = times["dense"], times.get("method")
        chosen = dense if alone or ours is None else ours
        unchosen = ours if alone else None
        return replace(result, timing=chosen, dense_timing=dense, method_timing=unchosen, dense_labels=labels)


def _only(labels: Tensor, mask: Mask | None) -> Tensor:
    """Return labels [H, W] where they are wanted, void elsewhere."""
    return labels if mask is None else labels.masked_fill(~mask.pixels[0].to(labels.device), VOID)


def _cells(prediction: Prediction, mask: Mask | None, size: tuple[int, int], tile: int) -> Tensor | None:
    """Return the level of every cell of an image of a size [px]; None if the dense network ran."""
    levels = prediction.trace.levels
    if levels is None:
        return None
    rows, columns = grid(size, tile)
    found = levels[0, :rows, :columns]
    return found if mask is None else found.masked_fill(~mask.cells[0], SKIP)


def _passes(run: tuple[Prediction, float]) -> Sequence[Step]:
    """Return the passes of a timed run."""
    return run[0].trace.steps
