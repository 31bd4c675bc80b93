"""What `foveal bench` measures, on generated or given images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from foveal.benchmark.machine import describe_machine
from foveal.benchmark.results import Measured
from foveal.benchmark.runtimes import Choice, Precision, packages_of
from foveal.calibration.engine import Engine, int8_scales
from foveal.hub.checkpoint import Model
from foveal.methods import MethodConfig
from foveal.models import MODELS
from foveal.program.quantise import LEAST_AGREEMENT, Scales

Report = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        model: The network.
        image: [N, 3, H, W] in 0..1.
        method: Name in `foveal.methods.METHODS`.
        configs: Settings of the method, row by row.
        runtimes: From `choose_runtimes`; one in every precision of adaptive rows.
        repeat: Timed rounds.
        memory: Whether peak memory is measured, every row in a process of its own.
        keep: Whether the allocator keeps freed memory in those processes.
        precisions: Of the adaptive rows.
        calibration: Images [N, 3, H, W] that int8 takes its ranges from.
        scales: How our int8 is written; found on the images of `calibration` if absent.
        labels_count: Whether our int8 leaves maps in bfloat16 where too many labels change; not where labels
            mean nothing, and only time counts.
        wanted: Pixels that are wanted [N, H, W], bool; every row then runs a second time under this mask.
    """

    model: Model
    image: Tensor
    method: str
    configs: Sequence[MethodConfig]
    runtimes: Sequence[Choice]
    repeat: int = 20
    memory: bool = False
    keep: bool = True
    precisions: Sequence[Precision] = ("f32",)
    calibration: Sequence[Tensor] = ()
    scales: Scales | None = None
    labels_count: bool = True
    wanted: Tensor | None = None

    @property
    def trained(self) -> bool:
        """Whether the network was trained: a bare architecture was not, and its labels mean nothing."""
        return self.model.name not in MODELS

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images [px]."""
        return self.image.shape[2], self.image.shape[3]


def task_scales(task: Task, engine: Engine) -> Scales:
    """Return how our int8 is written, given what runs the network in f32.

    Raises:
        ValueError: The network has no program in int8, or there are no images for its ranges.
    """
    if task.scales is not None:
        return task.scales
    images = [image for batch in task.calibration for image in batch]
    return int8_scales(engine, images, LEAST_AGREEMENT if task.labels_count else 0.0)


def describe_task(task: Task, macs: int) -> Measured:
    """Say what was measured on what."""
    machine = describe_machine(packages_of(task.runtimes))
    return Measured(
        **vars(machine),
        model=task.model.name,
        weights="trained" if task.trained else "random",
        size=task.size,
        batch=len(task.image),
        repeat=task.repeat,
        dense_macs=macs,
    )
