"""Calibrate a trained network for any budget, latency and risk, from images without labels.

A quarter of the images chooses class weights, levels, score, gains, thresholds and what dense is mixed with;
the others calibrate the risk, so that nothing is chosen by the losses that its promise is about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from statistics import fmean

import torch
from torch import Tensor

from foveal.calibration.engine import Engine, find_engine
from foveal.calibration.neighbours import Neighbourhood, last_step, noise, observe
from foveal.calibration.profile import METHOD, CalibrationProfile, CurveRow
from foveal.calibration.risk import RiskTable, measure
from foveal.cost import alternate
from foveal.geometry.plan import Plan
from foveal.hub.checkpoint import Model
from foveal.methods import (
    AdaptiveSegmenter,
    CoarseToFine,
    CoarseToFineConfig,
    Prediction,
    Refinement,
    SegBlocksConfig,
)
from foveal.methods.base import check_tile
from foveal.objectives.disagreement import class_weights, disagreement
from foveal.ops import classify, halve, tuning
from foveal.policies import POLICIES, View
from foveal.policies.budgeted import per_cell
from foveal.policies.uncertainty import weighted_entropy

BUDGETS = (0.3, 0.4, 0.55, 0.65, 0.8)
"""Budgets of the curve; those that do not pay for the first pass are left out."""
SHOWN = 48
"""Images that the curve is measured on, evenly spaced."""
PROBED = 24
"""Images that the gains of steps and the thresholds are taken from, evenly spaced among those that choose."""
TIMED = 3
"""Images that are timed."""

Images = Sequence[Tensor]
"""Images [3, H, W] in 0..1, read when they are asked for."""
Report = Callable[[str, int, int], None]
"""Told what is done, how far it is, and the total."""


def adapt(
    model: Model,
    images: Images,
    candidates: Sequence[CoarseToFineConfig],
    report: Report,
    engine: Engine | None = None,
    labels: Sequence[Tensor] | None = None,
) -> CalibrationProfile:
    """Measure how a network refines best, and what it loses against itself.

    Args:
        model: The trained network.
        images: Images like those that will come.
        candidates: Settings to choose from; those whose answers differ least from dense are kept.
        report: Called as the work goes on.
        engine: What runs the model; found if absent.
        labels: True classes [H, W] of every image, for a risk of the error beyond the dense network's; absent
            for one of disagreement with it.

    Raises:
        ValueError: What is asked for does not fit, there is no image, or one too small, or none is labelled.
    """
    for config in candidates:
        check(model, images, config)
    study = _Study(engine or find_engine(model), images, candidates[0], report, labels)
    with torch.inference_mode():
        weights = study.count()
        study.check_sizes()
        config = candidates[0] if len(candidates) == 1 else study.best(candidates, weights)
        config = replace(config, level_gain=study.level_gain(config, weights))
        config = study.config = replace(config, isolated_gain=study.isolated_gain(config, weights))
        risk = study.risk(weights)
        curve = study.curve(weights)
    return CalibrationProfile(
        weights=model.weights,
        config=config,
        class_weights=tuple(round(w, 6) for w in weights.tolist()),
        images=len(images),
        risk=risk,
        curve=curve,
        risk_of="dense" if labels is None else "labels",
        chosen_on=len(study.chosen),
    )


def check(model: Model, images: Images, config: CoarseToFineConfig) -> None:
    """Refuse what cannot be measured, before anything takes time.

    Raises:
        ValueError: There are no images, the score is none of uncertainty, or tile or level do not fit.
    """
    if config.coarse_level < 1:
        raise ValueError(
            f"coarse_level is {config.coarse_level}; a first pass at level 1 or more leaves something to "
            "refine"
        )
    if len(images) == 0:
        raise ValueError(
            "there are no images to adapt to; give a folder with images like those that will come"
        )
    _ = config.refinement
    check_tile(model.network, config.tile)


class _Study:
    """One network on one set of images; the dense answers are computed once.

    What is measured runs as it will later, as a program if there is one. What is looked at pass by pass, and
    the random control, which no program has, run in PyTorch.
    """

    def __init__(
        self,
        engine: Engine,
        images: Images,
        config: CoarseToFineConfig,
        report: Report,
        labels: Sequence[Tensor] | None,
    ) -> None:
        self.engine, self.images, self.config, self.report = engine, images, config, report
        self.labels = labels
        self.chosen, self.held = measure.divide(len(images))
        self.network = engine.dense().dense()
        self.dense: list[Tensor] = []
        self.sizes: set[tuple[int, int]] = set()

    def count(self) -> Tensor:
        """Run the dense network on every image; return the weights of its classes [K] there."""
        counts = torch.zeros(256, dtype=torch.int64)
        classes = 0
        for index in range(len(self.images)):
            image = self._image(index)
            with tuning() if index == 0 else nullcontext():
                logits = self.network(image)
            labels = classify(logits, (image.shape[2], image.shape[3]))[0].cpu().clone()
            if index in self.chosen:
                counts += torch.bincount(labels.flatten().long(), minlength=256)
            classes = logits.shape[1]
            self.dense.append(labels)
            self.sizes.add((image.shape[2], image.shape[3]))
            self.report("dense answers", index + 1, len(self.images))
        return class_weights(counts[:classes])

    def check_sizes(self) -> None:
        """Refuse images so small that no budget pays for a first pass and more.

        Raises:
            ValueError: There is such an image.
        """
        if not self.budgets(self.config.coarse_level):
            height, width = min(self.sizes)
            raise ValueError(
                f"the smallest image has {height}x{width} px, and with tiles of {self.config.tile} px a "
                f"first pass takes up to {self.least(self.config.coarse_level):.2g} of the dense work; give "
                "larger images or a smaller tile"
            )

    def best(self, candidates: Sequence[CoarseToFineConfig], weights: Tensor) -> CoarseToFineConfig:
        """Choose the settings whose answers differ least from dense, over the budgets of the curve."""
        possible = [config for config in candidates if self.budgets(config.coarse_level)]
        budgets = self.budgets(min(config.coarse_level for config in possible))
        found = []
        for done, config in enumerate(possible, start=1):
            gains = self.level_gain(config, weights)
            methods = [self._make(replace(config, budget=share, level_gain=gains)) for share in budgets]
            losses = []
            for index in measure.spaced(self.chosen, PROBED):
                image = self._image(index)
                losses += [self._compare(method(image), index, weights)[2] for method in methods]
            found.append(fmean(losses))
            self.report("first pass and score", done, len(possible))
        return possible[found.index(min(found))]

    def level_gain(self, config: CoarseToFineConfig, weights: Tensor) -> tuple[float, ...]:
        """Measure what a step to every level gains per unit of the score, relative to the best step.

        What a step gains is the disagreement with the dense network that it removes where it was uncertain.
        """
        levels, score = config.coarse_level, config.refinement.score
        gained, promised = [0.0] * max(1, levels), [1e-9] * max(1, levels)
        for index in measure.spaced(self.chosen, PROBED):
            image = self._image(index)
            logits = [self.network(image)]
            small = image
            for _ in range(levels):
                small = halve(small)
                logits.append(self.network(small))
            wrong = [self._wrong(x, index, image, weights) for x in logits]
            for level in range(levels):
                gain = score(View(image, logits=logits[level + 1]))
                promised[level] += float(self._cells(gain, image).sum())
                gained[level] += float((wrong[level + 1] - wrong[level]).clamp(min=0).sum())
        rates = [g / p for g, p in zip(gained, promised, strict=True)]
        if not max(rates):
            return Refinement.level_gain[:levels]
        # Not quite nothing, so that the score still says where.
        return tuple(max(0.01, round(rate / max(rates), 3)) for rate in rates)

    def isolated_gain(self, config: CoarseToFineConfig, weights: Tensor) -> float:
        """Measure what a refined tile gains among coarse ones, as a share of that among refined ones.

        Tiles are refined in patches of noise, at every budget of the curve.
        """
        found, step = Neighbourhood(), replace(last_step(config), isolated_gain=1.0, level_gain=(1.0,))
        for seed, index in enumerate(measure.spaced(self.chosen, PROBED)):
            image = self._image(index)
            wrong = partial(self._wrong, index=index, image=image, weights=weights)
            how = replace(step.refinement, score=noise(seed))
            for budget in self.budgets(step.coarse_level):
                observe(self._method(replace(step, budget=budget), how), image, wrong, found)
        return found.isolated_gain or config.isolated_gain

    def risk(self, weights: Tensor) -> RiskTable:
        """Run every image at every threshold; the dense network is setting 0."""
        loss = measure.ImageLoss(self.dense, weights, self.labels)
        runs = measure.Runs(self.engine, self.config, self._thresholds(), self._image, loss, self.report)
        return measure.calibrate_risk(runs, self.chosen, self.held)

    def curve(self, weights: Tensor) -> tuple[CurveRow, ...]:
        """Measure quality and time over work, with controls: a random choice, and everything at one level."""
        level = self.config.coarse_level
        runs: dict[tuple[str, float], AdaptiveSegmenter] = {("dense", 1.0): self.engine.dense()}
        random = replace(self.config.refinement, score=POLICIES["random"].score or weighted_entropy)
        for budget in self.budgets(level):
            runs["coarse_to_fine", budget] = self._make(replace(self.config, budget=budget))
            runs["random", budget] = self._method(replace(self.config, budget=budget), random)
        uniform = SegBlocksConfig(1.0, policy="none", tile=self.config.tile, max_level=level)
        runs["uniform", 0.25**level] = self.engine.make("segblocks", uniform)
        chosen = measure.spaced(range(len(self.images)), SHOWN)
        found: dict[tuple[str, float], list[tuple[float, float, float]]] = {key: [] for key in runs}
        for done, index in enumerate(chosen, start=1):
            image = self._image(index)
            for key, method in runs.items():
                found[key].append(self._compare(method(image), index, weights))
            self.report("quality over work", done, len(chosen))
        times = self._times(runs)
        return tuple(_row(key, values, times[key]) for key, values in found.items())

    def least(self, level: int) -> float:
        """Return the largest work of a first pass at a level, over the sizes of the images."""
        plans = (Plan.uniform(1, size, self.config.tile, level) for size in self.sizes)
        return max(float(plan.work) for plan in plans)

    def budgets(self, level: int) -> list[float]:
        """List the budgets that pay for a first pass at a level and for some more, for every image."""
        return [budget for budget in BUDGETS if budget > self.least(level) + 0.02]

    def _times(self, runs: dict[tuple[str, float], AdaptiveSegmenter]) -> dict[tuple[str, float], float]:
        """Time all in turns [ms]."""
        times: dict[tuple[str, float], list[float]] = {key: [] for key in runs}
        names = {f"{method} {budget}": (method, budget) for method, budget in runs}
        for index in measure.spaced(range(len(self.images)), TIMED):
            image = self._image(index)
            turns: dict[str, Callable[[], Tensor]] = {
                name: partial(runs[key].labels, image) for name, key in names.items()
            }
            for name, timing in alternate(turns, repeat=3, warmup=1).items():
                times[names[name]].append(timing.median)
        return {key: fmean(values) for key, values in times.items()}

    def _compare(self, answer: Prediction, index: int, weights: Tensor) -> tuple[float, float, float]:
        dense = self.dense[index][None]
        labels = answer.labels.cpu()
        same = float((labels == dense).double().mean())
        return float(answer.trace.work[0]), same, float(disagreement(labels, dense, weights)[0])

    def _thresholds(self) -> list[float]:
        """Take quantiles of the gain of every tile that a first pass leaves open."""
        rates = []
        method = self._method(replace(self.config, budget=1.0, threshold=torch.inf))
        for index in measure.spaced(self.chosen, PROBED):
            image = self._image(index)
            rates.append(method.rates(image, method(image)))
        return measure.spread_thresholds(torch.cat(rates))

    def _wrong(self, logits: Tensor, index: int, image: Tensor, weights: Tensor) -> Tensor:
        """Weighted disagreement per cell of an answer at any level."""
        size = (image.shape[2], image.shape[3])
        full = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        dense = self.dense[index]
        wrong = (full.argmax(1)[0].cpu() != dense).float() * weights[dense.long()]
        return per_cell(wrong[None], size, self.config.tile)[0]

    def _cells(self, gain: Tensor | tuple[Tensor, ...], image: Tensor) -> Tensor:
        first = gain if isinstance(gain, Tensor) else gain[0]
        return per_cell(first, (image.shape[2], image.shape[3]), self.config.tile)[0]

    def _make(self, config: CoarseToFineConfig) -> AdaptiveSegmenter:
        return self.engine.make(METHOD, config)

    def _method(self, config: CoarseToFineConfig, refinement: Refinement | None = None) -> CoarseToFine:
        how, network = refinement or config.refinement, self.engine.network
        return CoarseToFine(network, config.budget, config.tile, config.coarse_level, how).eval()

    def _image(self, index: int) -> Tensor:
        image = self.engine.sent(self.images[index][None])
        return image.contiguous(memory_format=torch.channels_last)


def _row(key: tuple[str, float], values: list[tuple[float, float, float]], ms: float) -> CurveRow:
    work, agreement, loss = (fmean(column) for column in zip(*values, strict=True))
    numbers = round(work, 4), round(agreement, 5), round(loss, 5), round(ms, 2)
    return CurveRow(*key, *numbers, len(values))
