"""Fit a trained network for any budget, latency and risk, from images alone: no label is ever read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from foveal.calibration.profile import Fit
from foveal.calibration.risk import RiskTable
from foveal.cost import alternate
from foveal.fusion import faster
from foveal.geometry.plan import Plan
from foveal.hub.checkpoint import Model, fingerprint
from foveal.methods import CoarseToFine, Dense, Prediction, Request, SegBlocks, Segmenter
from foveal.methods.base import check_tile
from foveal.methods.coarse_to_fine import Closer
from foveal.objectives.disagreement import class_weights, disagreement
from foveal.ops import classify, halve, tuning
from foveal.policies import POLICIES, View, create_policy
from foveal.policies.budgeted import per_cell

QUANTILES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""Thresholds of the risk table are these quantiles of the gain per tile."""
BUDGETS = (0.3, 0.4, 0.55, 0.65, 0.8)
"""Budgets of the curve; those below the first look are left out."""
SHOWN = 48
"""Images that the curve is measured on, evenly spaced."""
PROBED = 24
"""Images that the worth of steps and the thresholds are taken from, evenly spaced."""
TIMED = 3
"""Images that are timed."""

Images = Sequence[Tensor]
"""Images [3, H, W] in 0..1, read when they are asked for."""
Report = Callable[[str, int, int], None]
"""Told what is done, how far it is, and the total."""


def adapt(model: Model, images: Images, requests: Sequence[Request], report: Report) -> Fit:
    """Measure how a network looks closer best, and what it loses against itself.

    Args:
        model: The trained network.
        images: Images like those that will come.
        requests: Tile, level of the first look and score to choose from; the one whose answers differ least
            from dense is kept.
        report: Called as the work goes on.

    Raises:
        ValueError: What is asked for does not fit, or there is no image, or one too small.
    """
    for request in requests:
        check(model, images, request)
    study = _Study(faster(model.network).eval(), images, requests[0], report)
    with torch.inference_mode():
        weights = study.count()
        study.check_sizes()
        request = requests[0] if len(requests) == 1 else study.best(requests, weights)
        study.request, worth = request, study.worth(request, weights)
        closer = _closer(request, worth)
        risk = study.risk(closer, weights)
        curve = study.curve(closer, weights)
    return Fit(
        weights=fingerprint(model.network),
        tile=request.tile,
        look=request.look,
        policy=request.policy,
        worth=worth,
        class_weights=tuple(round(w, 6) for w in weights.tolist()),
        images=len(images),
        risk=risk,
        curve=curve,
    )


def check(model: Model, images: Images, request: Request) -> None:
    """Refuse what cannot be measured, before anything takes time.

    Raises:
        ValueError: There are no images, the score is none of doubt, or tile or look do not fit.
    """
    if request.look < 1:
        raise ValueError(
            f"look is {request.look}; a first look at level 1 or more leaves something to refine"
        )
    if len(images) == 0:
        raise ValueError(
            "there are no images to adapt to; give a folder with images like those that will come"
        )
    entry = POLICIES.get(request.policy)
    if entry is None or entry.score is None or not entry.looks:
        raise ValueError(f"policy {request.policy} does not go by the network's doubt; give weighted_entropy")
    check_tile(model.network, request.tile)


class _Study:
    """One network on one set of images; the dense answers are computed once."""

    def __init__(self, network: torch.nn.Module, images: Images, request: Request, report: Report) -> None:
        self.network, self.images, self.request, self.report = network, images, request, report
        self.dense: list[Tensor] = []
        self.sizes: set[tuple[int, int]] = set()

    def count(self) -> Tensor:
        """Run the dense network on every image; return the weights of its classes [K]."""
        counts = torch.zeros(256, dtype=torch.int64)
        classes = 0
        for index in range(len(self.images)):
            image = self._image(index)
            with tuning() if index == 0 else nullcontext():
                logits = self.network(image)
            labels = classify(logits, (image.shape[2], image.shape[3]))[0].clone()
            counts += torch.bincount(labels.flatten().long(), minlength=256)
            classes = logits.shape[1]
            self.dense.append(labels)
            self.sizes.add((image.shape[2], image.shape[3]))
            self.report("dense answers", index + 1, len(self.images))
        return class_weights(counts[:classes])

    def check_sizes(self) -> None:
        """Refuse images so small that no budget pays for a first look and more.

        Raises:
            ValueError: There is such an image.
        """
        if not self.budgets(self.request.look):
            height, width = min(self.sizes)
            raise ValueError(
                f"the smallest image has {height}x{width} px, and with tiles of {self.request.tile} px a "
                f"first look takes up to {self.least(self.request.look):.2g} of the dense work; give larger "
                "images or a smaller tile"
            )

    def best(self, requests: Sequence[Request], weights: Tensor) -> Request:
        """Choose the request whose answers differ least from dense, over the budgets of the curve."""
        open_to = [request for request in requests if self.budgets(request.look)]
        budgets = self.budgets(min(request.look for request in open_to))
        found = []
        for done, request in enumerate(open_to, start=1):
            closer = _closer(request, self.worth(request, weights))
            methods = [self._method(replace(request, budget=budget), closer) for budget in budgets]
            losses = []
            for index in self._some(PROBED):
                image = self._image(index)
                losses += [self._compare(method(image), index, weights)[2] for method in methods]
            found.append(fmean(losses))
            self.report("first look and score", done, len(open_to))
        return open_to[found.index(min(found))]

    def worth(self, request: Request, weights: Tensor) -> tuple[float, ...]:
        """Measure what a step to every level gains per unit of the score, relative to the best step.

        What a step gains is the disagreement with the dense network that it removes where it was in doubt.
        """
        look, score = request.look, _closer(request).score
        gained, promised = [0.0] * max(1, look), [1e-9] * max(1, look)
        for index in self._some(PROBED):
            image = self._image(index)
            logits = [self.network(image)]
            small = image
            for _ in range(look):
                small = halve(small)
                logits.append(self.network(small))
            wrong = [self._wrong(x, index, image, weights) for x in logits]
            for level in range(look):
                gain = score(View(image, logits=logits[level + 1]))
                promised[level] += float(self._cells(gain, image).sum())
                gained[level] += float((wrong[level + 1] - wrong[level]).clamp(min=0).sum())
        rates = [g / p for g, p in zip(gained, promised, strict=True)]
        if not max(rates):
            return Closer.worth[:look]
        # Not quite nothing, so that the score still says where.
        return tuple(max(0.01, round(rate / max(rates), 3)) for rate in rates)

    def risk(self, closer: Closer, weights: Tensor) -> RiskTable:
        """Run every image at every threshold; the dense network is setting 0."""
        thresholds = self._thresholds(closer)
        methods = [
            self._method(replace(self.request, budget=1.0), replace(closer, threshold=t)) for t in thresholds
        ]
        shape = len(self.images), 1 + len(thresholds)
        losses, doubts = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        works = torch.ones(shape, dtype=torch.float64)
        for index in range(len(self.images)):
            image = self._image(index)
            with tuning() if index == 0 else nullcontext():
                look = next(methods[0].stream(image))
            for k, method in enumerate(methods, start=1):
                with tuning() if index == 0 else nullcontext():
                    answer = method.after(image, look)
                losses[index, k] = disagreement(answer.labels, self.dense[index][None], weights)[0]
                works[index, k], doubts[index, k] = answer.trace.work[0], method.doubt(image, answer)[0]
            self.report("risk", index + 1, len(self.images))
        return RiskTable.fit([0.0, *thresholds], works, losses, doubts)

    def curve(self, closer: Closer, weights: Tensor) -> list[dict[str, Any]]:
        """Measure quality and time over work, with controls: a random choice, and everything at one level."""
        least, budgets = 0.25**self.request.look, self.budgets(self.request.look)
        runs: dict[tuple[str, float], Segmenter] = {("dense", 1.0): Dense(self.network).eval()}
        random = replace(closer, score=POLICIES["random"].score or closer.score)
        for budget in budgets:
            runs["coarse_to_fine", budget] = self._method(replace(self.request, budget=budget), closer)
            runs["random", budget] = self._method(replace(self.request, budget=budget), random)
        uniform = create_policy("none", 1.0, self.request.tile, self.request.look)
        runs["uniform", least] = SegBlocks(self.network, uniform).eval()
        chosen = self._some(SHOWN)
        found: dict[tuple[str, float], list[tuple[float, float, float]]] = {key: [] for key in runs}
        for done, index in enumerate(chosen, start=1):
            image = self._image(index)
            for key, method in runs.items():
                found[key].append(self._compare(method(image), index, weights))
            self.report("quality over work", done, len(chosen))
        times = self._times(runs)
        return [_row(key, values, times[key]) for key, values in found.items()]

    def least(self, level: int) -> float:
        """Return the largest work of a first look at a level, over the sizes of the images."""
        plans = (Plan.uniform(1, size, self.request.tile, level) for size in self.sizes)
        return max(float(plan.work) for plan in plans)

    def budgets(self, level: int) -> list[float]:
        """List the budgets that pay for a first look at a level and for some more, for every image."""
        return [budget for budget in BUDGETS if budget > self.least(level) + 0.02]

    def _times(self, runs: dict[tuple[str, float], Segmenter]) -> dict[tuple[str, float], float]:
        """Time all in turns [ms]."""
        times: dict[tuple[str, float], list[float]] = {key: [] for key in runs}
        names = {f"{method} {budget}": (method, budget) for method, budget in runs}
        for index in self._some(TIMED):
            image = self._image(index)
            turns = {name: _labels(runs[key], image) for name, key in names.items()}
            for name, timing in alternate(turns, repeat=3, warmup=1).items():
                times[names[name]].append(timing.median)
        return {key: fmean(values) for key, values in times.items()}

    def _compare(self, answer: Prediction, index: int, weights: Tensor) -> tuple[float, float, float]:
        dense = self.dense[index][None]
        same = float((answer.labels == dense).double().mean())
        return float(answer.trace.work[0]), same, float(disagreement(answer.labels, dense, weights)[0])

    def _thresholds(self, closer: Closer) -> list[float]:
        """Take quantiles of the gain of every tile that a first look leaves open."""
        rates = []
        for index in self._some(PROBED):
            image = self._image(index)
            method = self._method(replace(self.request, budget=1.0), replace(closer, threshold=torch.inf))
            rates.append(method.rates(image, method(image)))
        found = torch.cat(rates)
        quantiles = torch.quantile(found, torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
        return sorted({float(f"{q:.4g}") for q in quantiles})

    def _wrong(self, logits: Tensor, index: int, image: Tensor, weights: Tensor) -> Tensor:
        """Weighted disagreement per cell of an answer at any level."""
        size = (image.shape[2], image.shape[3])
        full = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        dense = self.dense[index]
        wrong = (full.argmax(1)[0] != dense).float() * weights[dense.long()]
        return per_cell(wrong[None], size, self.request.tile)[0]

    def _cells(self, gain: Tensor | tuple[Tensor, ...], image: Tensor) -> Tensor:
        first = gain if isinstance(gain, Tensor) else gain[0]
        return per_cell(first, (image.shape[2], image.shape[3]), self.request.tile)[0]

    def _method(self, request: Request, closer: Closer) -> CoarseToFine:
        return CoarseToFine(self.network, request.budget, request.tile, request.look, closer).eval()

    def _image(self, index: int) -> Tensor:
        return self.images[index][None].to(memory_format=torch.channels_last)

    def _some(self, count: int) -> list[int]:
        total = len(self.images)
        return sorted({k * total // min(count, total) for k in range(min(count, total))})


def _closer(request: Request, worth: tuple[float, ...] = Closer.worth) -> Closer:
    score = POLICIES[request.policy].score
    assert score is not None
    return Closer(score, worth)


def _labels(method: Segmenter, image: Tensor) -> Callable[[], Tensor]:
    return lambda: method(image).labels


def _row(key: tuple[str, float], values: list[tuple[float, float, float]], ms: float) -> dict[str, Any]:
    work, agreement, loss = (fmean(column) for column in zip(*values, strict=True))
    return {
        "method": key[0],
        "budget": key[1],
        "work": round(work, 4),
        "agreement": round(agreement, 5),
        "disagreement": round(loss, 5),
        "ms": round(ms, 2),
        "images": len(values),
    }
