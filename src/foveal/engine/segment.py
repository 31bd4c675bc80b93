"""The loop over images: one trained network, one method, any number of files."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from foveal.cost import Timing, alternate, count_macs
from foveal.data.image import read_image
from foveal.engine.checkpoint import Model
from foveal.methods import METHODS, Dense, Prediction, Segmenter
from foveal.methods.segmenter import upsample
from foveal.policies import POLICIES, Policy, View, create_policy
from foveal.tiles import NoTileRule, Plan
from foveal.tiles.plan import SKIP, check_budget, grid

SMALL = 2.0
"""An image is small for its tiles if padding makes the cheapest plan dearer by more than this factor."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        method: Name in `foveal.methods.METHODS`.
        policy: Name in `foveal.policies.POLICIES`.
        budget: Share of the dense work, the decision included.
        tile: Side of a tile [px].
        coarsest: Level of the places that gain least.
        look: Level of the first look, for policies that need one.

    Raises:
        ValueError: A name is unknown, or the budget is no share.
    """

    method: str = "segblocks"
    policy: str = "weighted_entropy"
    budget: float = 0.4
    tile: int = 32
    coarsest: int = 2
    look: int = 2

    def __post_init__(self) -> None:
        check_budget(self.budget)
        if self.method not in METHODS:
            close = get_close_matches(self.method, METHODS, 1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise ValueError(f"no method named '{self.method}'; {hint}available: {', '.join(METHODS)}")
        create_policy(self.policy, self.budget, self.tile, self.coarsest, self.look)

    @property
    def share(self) -> float:
        """The budget, unless the policy has one of its own."""
        fixed = POLICIES[self.policy].budget
        return self.budget if fixed is None else fixed


@dataclass(frozen=True)
class Result:
    """What a network says about one image, and what it cost.

    Attributes:
        image: [3, H, W] in 0..1.
        labels: Class per pixel [H, W], uint8.
        plan: Which tiles ran, at which level; None if the dense network ran.
        work: Share of the dense work, the decision included.
        macs: Multiply-accumulates that ran [MAC].
        dense_macs: Those of the dense network [MAC].
        timing: Wall time up to the labels [ms]; without a comparison that of the one run in which the MACs
            are counted, which is somewhat slower.
        dense_timing: That of the dense network, measured in turns with it; None without a comparison.
        dense_labels: Labels of the dense network [H, W]; None without a comparison.
        reason: Why the dense network ran; empty if it did not.
    """

    image: Tensor
    labels: Tensor
    plan: Plan | None
    work: float
    macs: int
    dense_macs: int
    timing: Timing
    dense_timing: Timing | None = None
    dense_labels: Tensor | None = None
    reason: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image [px]."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def agreement(self) -> float | None:
        """Share of the pixels with the dense network's label; None without a comparison."""
        return None if self.dense_labels is None else float((self.dense_labels == self.labels).double().mean())

    @cached_property
    def levels(self) -> dict[int, float]:
        """Share of the image at every level that occurs, finest first, SKIP last."""
        if self.plan is None:
            return {0: 1.0}
        found = set(self.plan.levels.flatten().tolist())
        return {level: self.plan.share(level) for level in sorted(found, key=lambda k: (k == SKIP, k))}


class DenseIsCheaper(Exception):
    """A plan costs as much as the dense network, whose answer is never worse.

    Attributes:
        spent: Work of the first look that led to the plan.
    """

    def __init__(self, spent: float) -> None:
        super().__init__("the plan costs as much as the dense network")
        self.spent = spent


class Runner:
    """Segments images one by one, with the dense network wherever that is cheaper (law 12).

    Args:
        model: The trained network.
        request: Method and policy.

    Raises:
        ValueError: The tile does not suit the network's stride.
    """

    def __init__(self, model: Model, request: Request) -> None:
        stride = model.network.coarsest_stride
        if request.tile % stride:
            raise ValueError(
                f"tile is {request.tile} px and {model.card.network} has stride {stride}; give a multiple of "
                f"{stride}, such as {max(1, round(request.tile / stride)) * stride}"
            )
        self.model = model
        self.request = request
        self._outline = copy.deepcopy(model.network).to("meta")
        self._dense_macs: dict[tuple[int, int], int] = {}
        self._dense = Dense(model.network).eval()
        self._method = self._build()

    def __call__(self, image: Tensor, repeat: int = 0) -> Result:
        """Segment one image [3, H, W] in 0..1.

        Args:
            image: The image.
            repeat: Timed rounds, dense and adaptive in turns; 0 compares nothing.

        Raises:
            ValueError: The budget does not pay for the cheapest plan.
        """
        batch = image[None].to(memory_format=torch.channels_last)
        size = (image.shape[1], image.shape[2])
        reason = self._why_dense(size)
        dense_macs = self.dense_macs(size)
        runs: list[_Run] = []
        macs = count_macs(lambda: runs.append(self._run(batch, reason))).total
        run = runs[0]
        result = Result(
            image=image,
            labels=run.prediction.labels[0],
            plan=run.prediction.trace.plan,
            work=float(run.prediction.trace.work[0]) + run.wasted,
            macs=macs,
            dense_macs=dense_macs,
            timing=Timing((run.ms,)),
            reason=run.reason,
        )
        return self._compare(result, batch, repeat) if repeat else result

    def dense_macs(self, size: tuple[int, int]) -> int:
        """Count the MACs of the dense network at a size, up to the labels, without running it."""
        if size not in self._dense_macs:
            empty = torch.empty(1, 3, *size, device="meta")
            self._dense_macs[size] = count_macs(lambda: upsample(self._outline(empty), size)).total
        return self._dense_macs[size]

    def _build(self) -> Segmenter:
        kind = METHODS[self.request.method]
        if kind is Dense:
            return self._dense
        r = self.request
        policy = create_policy(r.policy, r.budget, r.tile, r.coarsest, r.look)
        return kind(self.model.network, _Guard(policy)).eval()

    def _run(self, batch: Tensor, reason: str) -> _Run:
        """Run the method up to the labels, or the dense network if there is a reason to."""
        start, wasted = time.perf_counter(), 0.0
        try:
            prediction = (self._dense if reason else self._method)(batch)
        except DenseIsCheaper as cheaper:
            prediction, reason, wasted = self._dense(batch), str(cheaper), cheaper.spent
        except NoTileRule as error:
            raise ValueError(f"{self.model.name}: {error}") from None
        _ = prediction.labels
        return _Run(prediction, 1000 * (time.perf_counter() - start), reason, wasted)

    def _compare(self, result: Result, batch: Tensor, repeat: int) -> Result:
        """Time the method and the dense network in turns, and compare their labels."""
        found: list[Tensor] = []

        def dense() -> None:
            found[:] = [self._dense(batch).labels[0]]

        runs: dict[str, Callable[[], object]] = {"dense": dense}
        if not result.reason:
            runs["method"] = lambda: self._method(batch).labels
        times = alternate(runs, repeat, warmup=1)
        timing = times.get("method", times["dense"])
        return replace(result, timing=timing, dense_timing=times["dense"], dense_labels=found[0])

    def _why_dense(self, size: tuple[int, int]) -> str:
        """Say why tiles cannot pay for an image of this size; empty if they may."""
        request = self.request
        if request.method == "dense":
            return "as asked for"
        if request.share >= 1:
            return "everything at full resolution is what the dense network computes"
        cells = [-(-n >> request.coarsest) for n in grid(size, request.tile)]
        share = prod(cells) * request.tile**2 / prod(size)
        padding = share * 4**request.coarsest
        spent = _look_work(size, request.look) if POLICIES[request.policy].looks else 0.0
        if share + spent >= 1 or (padding > SMALL and share + spent > request.share > 0):
            return (
                f"the image is small for tiles of {request.tile} px: the cheapest plan takes "
                f"{share + spent:.2g} of the dense work"
            )
        return ""


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
            yield path, ValueError(f"{path}: too large for this machine's memory; reduce it, or the budget")


class _Run(NamedTuple):
    """One run up to the labels: its wall time [ms], why it was dense, and work that led to nothing."""

    prediction: Prediction
    ms: float
    reason: str
    wasted: float


@dataclass(frozen=True)
class _Guard:
    """A policy that stops the method where its plan would cost as much as the dense network."""

    policy: Policy

    @property
    def look(self) -> int | None:
        """Level of the first look that the policy wants."""
        return getattr(self.policy, "look", None)

    @property
    def budget(self) -> float:
        """Budget of the policy."""
        return getattr(self.policy, "budget", 0.0)

    def __call__(self, view: View) -> Plan:
        """Plan, if that pays."""
        plan = self.policy(view)
        if float(plan.work.min()) + view.spent >= 1:
            raise DenseIsCheaper(view.spent)
        return plan


def _look_work(size: tuple[int, int], level: int) -> float:
    """Work of a pass over the image reduced by 2^level, sides rounded up."""
    return prod(-(-n // 2**level) for n in size) / prod(size)
