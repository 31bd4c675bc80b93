"""What `foveal bench` found, as values; JSON is their `asdict`, and its keys stay."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.benchmark.machine import Machine
from foveal.benchmark.runtimes import Precision


@dataclass(frozen=True)
class DenseRow:
    """The dense network in a static runtime.

    Attributes:
        runtime: Name in `foveal.benchmark.runtimes.RUNTIMES`.
        precision: f32, bf16 or int8.
        settings: What was chosen where the runtime leaves a choice.
        ms: Median [ms].
        p95: 95th percentile [ms].
        error: Largest difference of the logits from eager PyTorch's in f32, as a share of the largest.
        agreement: Share of the pixels with eager PyTorch's label; None for random weights.
    """

    runtime: str
    precision: str
    settings: str
    ms: float
    p95: float
    error: float
    agreement: float | None


@dataclass(frozen=True)
class Fastest:
    """The fastest static runtime, this package's own excluded."""

    runtime: str
    precision: str
    ms: float


@dataclass(frozen=True)
class BenchRow:
    """An adaptive method at one budget.

    Attributes:
        method: Name in `foveal.methods.METHODS`.
        policy: Name in `foveal.policies.POLICIES`.
        budget: Share of the dense work that was asked for.
        precision: f32, bf16 or int8.
        engine: What runs it, a compiled program or modules in eager PyTorch.
        max_level: Coarsest level that may occur.
        tile: Side of a tile [px].
        coarse_level: Level of the first pass of policies that need one.
        work: Share of the dense work that was done.
        macs: Counted [MAC].
        agreement: Share of the pixels with the dense network's label; None for random weights.
        ms: Median [ms].
        p95: 95th percentile [ms].
        speedup: Over the fastest static runtime of the same precision.
        eta: Speed-up times work: 1 if all saved work is saved time.
        own_speedup: Over this package's own dense network of the same precision.
        decide_ms: Time of the policy and, run as modules, of the tables of a new plan [ms]; None for a method
            that decides more than once.
        peak_mb: Memory at its peak [MB], if it was measured.
        dense_peak_mb: That of the dense network in eager PyTorch [MB].
        wanted: Share of the pixels that the mask wants, whose labels alone are compared; None without a mask.
    """

    method: str
    policy: str
    budget: float
    precision: str
    engine: str
    max_level: int
    tile: int
    coarse_level: int
    work: float
    macs: int
    agreement: float | None
    ms: float
    p95: float
    speedup: float
    eta: float
    own_speedup: float
    decide_ms: float | None
    peak_mb: float | None = None
    dense_peak_mb: float | None = None
    wanted: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measured(Machine):
    """A machine and a network on generated or given images.

    Attributes:
        model: Name of the model.
        weights: trained or random.
        size: Height and width of the images [px].
        batch: Images in a call.
        repeat: Timed rounds.
        dense_macs: Of the dense network [MAC].
    """

    model: str
    weights: str
    size: tuple[int, int]
    batch: int
    repeat: int
    dense_macs: int


@dataclass(frozen=True, kw_only=True)
class BenchResult(Measured):
    """What `foveal bench` found.

    Attributes:
        dense: Static runtimes, this package's own dense network last, in every precision of adaptive rows.
        best_static: The fastest runtime in the precision of the adaptive rows; by precision if these have
            several.
        best_static_any: The fastest runtime in any precision.
        adaptive: Methods and budgets.
        left_out: Sentences about what could not be run.
    """

    dense: tuple[DenseRow, ...]
    best_static: Fastest | dict[Precision, Fastest]
    best_static_any: Fastest
    adaptive: tuple[BenchRow, ...]
    left_out: tuple[str, ...] = ()

    @property
    def rivals(self) -> list[Fastest]:
        """The fastest runtime of every precision of the adaptive rows."""
        best = self.best_static
        return [best] if isinstance(best, Fastest) else list(best.values())
