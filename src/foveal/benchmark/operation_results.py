"""What `foveal bench --ops` found, as values; JSON is their `asdict`, and its keys stay.

Every value exists twice, for the dense network ("dense_") and for the tiles of one plan ("tiles_").
"""

from __future__ import annotations

from dataclasses import dataclass

from foveal.benchmark.results import Measured


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Multiply-accumulates [MAC], time [ms], and billions of nominal FLOPs a second."""

    dense_macs: int
    dense_ms: float
    dense_gflops: float
    tiles_macs: int
    tiles_ms: float
    tiles_gflops: float


@dataclass(frozen=True, kw_only=True)
class OperationRow(Speed):
    """One operation of the network.

    Attributes:
        name: Path of its module.
        stage: Beginning of the path.
        operation: What it does.
        shape: Of the dense map that it gives [N, C, H, W].
        dense_algorithm: That computes it on the dense map, if it is a convolution.
        tiles_algorithm: That computes it on tiles.
    """

    name: str
    stage: str
    operation: str
    shape: tuple[int, ...]
    dense_algorithm: str | None
    tiles_algorithm: str | None


@dataclass(frozen=True, kw_only=True)
class StageRow(Speed):
    """The sum of the operations of one stage, or of all."""

    stage: str


@dataclass(frozen=True)
class PlanRow:
    """The plan whose tiles were timed."""

    budget: float
    max_level: int
    tile: int
    policy: str
    work: float
    tiles: int


@dataclass(frozen=True)
class Whole:
    """The network in one call [ms]."""

    dense_ms: float
    tiles_ms: float


@dataclass(frozen=True)
class Around:
    """What is done around the network [ms]."""

    look: float
    policy: float
    tables: float
    split: float
    compose: float
    classify: float


@dataclass(frozen=True, kw_only=True)
class OperationsResult(Measured):
    """What `foveal bench --ops` found."""

    plan: PlanRow
    nodes: tuple[OperationRow, ...]
    stages: tuple[StageRow, ...]
    whole: Whole
    around: Around
