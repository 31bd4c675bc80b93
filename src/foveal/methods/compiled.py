"""A method on a compiled network: one native call from images to labels."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from foveal.geometry.plan import SKIP, Plan
from foveal.kernels.build import tell
from foveal.methods.base import AdaptiveSegmenter, WrappingMethod, check_shape
from foveal.methods.prediction import Prediction, Step, Trace
from foveal.ops.classify.spec import factor_of
from foveal.program.run import Program, ProgramResult
from foveal.program.settings import (
    CoarseToFineRun,
    DenseRun,
    PlannedRun,
    RefinedRun,
    Settings,
    logits_grid,
)

if TYPE_CHECKING:
    from foveal.tiles.memory import Memory


@runtime_checkable
class PlansOnce(Protocol):
    """A method that decides everything before it runs: a program can run its plans, whoever makes them."""

    def planned(self, image: Tensor) -> tuple[tuple[Step, ...], Plan]:
        """Return what the decision about images [N, C, H, W] cost, and the plan."""


@runtime_checkable
class MakesAnswer(PlansOnce, Protocol):
    """A method that plans once, and makes its answer of the network's and of something more."""

    def answer(
        self, image: Tensor, run: Callable[[Tensor, Plan], Tensor], wanted: Tensor | None = None
    ) -> Prediction:
        """Segment images [N, C, H, W], where cells are wanted, with what runs the network on a plan."""


class CompiledMethod(WrappingMethod):
    """Runs what a method would run as one native call.

    Args:
        method: The method, on the network that was compiled.
        program: The compiled network.
        settings: What the program is asked for; None if the method's own `planned` decides.

    Raises:
        ValueError: Programs cannot run the method.
    """

    def __init__(self, method: AdaptiveSegmenter, program: Program, settings: Settings | None) -> None:
        super().__init__()
        if settings is None and not isinstance(method, PlansOnce):
            raise ValueError(f"{type(method).__name__} decides in a way that a program does not have")
        self.method, self.program, self.settings = method, program, settings
        self.network = CompiledNetwork(program)

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, C, H, W] in 0..1; a memory is not used."""
        size = check_shape(image, self.network)
        if self._makes_answer is not None:
            return self._makes_answer.answer(image, self._of_plan)
        earlier, settings = self._decided(image)
        found = self._run(image, settings)
        logits, labels = _logits(found), torch.from_numpy(found.labels)
        steps = (*earlier, *passes(settings, found, size))
        return Prediction(logits, size, Trace(steps), computed_labels=labels)

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment where cells are wanted; the program leaves the others out of every pass."""
        size = check_shape(image, self.network)
        if self._makes_answer is not None:
            return self._makes_answer.answer(image, self._of_plan, wanted)
        earlier, settings = self._decided(image)
        found = self._run(image, settings, wanted=wanted)
        step = Step("network", torch.from_numpy(found.work))
        trace = Trace((*earlier, step), torch.from_numpy(found.levels))
        return Prediction(_logits(found), size, trace, computed_labels=torch.from_numpy(found.labels))

    def labels(self, image: Tensor) -> Tensor:
        """Return the class per pixel [N, H, W], uint8; the logits are not copied out of the program."""
        check_shape(image, self.network)
        if self._makes_answer is not None:
            return self._makes_answer.answer(image, self._of_plan).labels
        _, settings = self._decided(image)
        return torch.from_numpy(self._run(image, settings, logits=False).labels)

    def shrunk(self, image: Tensor, sides: tuple[int, int]) -> Prediction:
        """Segment images [N, C, H, W] that are shrunk to `sides` [px] first, within the same call.

        Work is a share of that on the shrunk images; logits are enlarged.
        """
        size = check_shape(image, self.network)
        _, settings = self._decided(image)
        found = self._run(image, settings, sides=sides)
        trace = Trace(passes(settings, found, sides))
        return Prediction(_logits(found), size, trace, computed_labels=torch.from_numpy(found.labels))

    def shrunk_labels(self, image: Tensor, sides: tuple[int, int]) -> Tensor:
        """Return the class per pixel [N, H, W], uint8, of images that are shrunk to `sides` [px] first."""
        check_shape(image, self.network)
        _, settings = self._decided(image)
        return torch.from_numpy(self._run(image, settings, logits=False, sides=sides).labels)

    @property
    def shrinks(self) -> bool:
        """Whether one call can shrink, decide and segment: nothing is decided before the program runs."""
        return self.settings is not None

    def _run(
        self,
        image: Tensor,
        settings: Settings,
        logits: bool = True,
        wanted: Tensor | None = None,
        sides: tuple[int, int] | None = None,
    ) -> ProgramResult:
        """Run the program up to the labels, and tell whoever counts what enlarging the logits takes."""
        size = image.shape[2], image.shape[3]
        mask = None if wanted is None else wanted.numpy()
        found = _run(self.program, image, settings, logits=logits, mask=mask, shrunk_to=sides)
        shape = len(image), self.program.classes, *logits_grid(size, sides or size, self.program.stride)
        factor = factor_of(shape, size)
        if sides not in (None, size):
            tell("interpolation", 4 * (len(image) * self.program.channels * prod(sides) + prod(shape)))
        tell("interpolation", 4 * prod(shape) * factor**2 if factor > 1 else 0)
        return found

    @property
    def _makes_answer(self) -> MakesAnswer | None:
        return self.method if self.settings is None and isinstance(self.method, MakesAnswer) else None

    def _of_plan(self, image: Tensor, plan: Plan) -> Tensor:
        """Run the tiles of a plan; return logits [N, K, h, w]."""
        return _logits(_run(self.program, image, PlannedRun(plan.levels.numpy(), plan.tile), logits=True))

    def step_ms(self, image: Tensor) -> dict[str, float]:
        """Time every step of the program, the decision, the composition and the labels in one run [ms]."""
        _, settings = self._decided(image)
        return _run(self.program, image, settings, profile=True).step_ms

    def _decided(self, image: Tensor) -> tuple[tuple[Step, ...], Settings]:
        """Return what a decision before the program cost, and what the program is asked for."""
        if self.settings is not None:
            return (), self.settings
        assert isinstance(self.method, PlansOnce), "was checked"
        earlier, plan = self.method.planned(image)
        return earlier, PlannedRun(plan.levels.numpy(), plan.tile)

    def decide(self, image: Tensor) -> Plan | None:
        """Return the plan of the method."""
        return self.method.decide(image)

    def dense(self) -> nn.Module:
        """Return the compiled network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return that of the method."""
        return self.method.least_work(size)

    def remaining_gain(self, image: Tensor, prediction: Prediction) -> Tensor:
        """Return that of the method."""
        return self.method.remaining_gain(image, prediction)


class CompiledNetwork(nn.Module):
    """A compiled network as a module from images [N, C, H, W] in 0..1 to logits [N, K, h, w]."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program, self.in_channels = program, program.channels

    def forward(self, image: Tensor) -> Tensor:
        """Run everything at full resolution."""
        settings = DenseRun(int(self.program.tables.head.coarsest_stride))
        return _logits(_run(self.program, image, settings, logits=True))


def passes(settings: Settings, found: ProgramResult, size: tuple[int, int]) -> tuple[Step, ...]:
    """Say which passes a run went through, from the levels that its answer comes from.

    A place that ended at a level was refined by every pass from the coarse one down to it.

    Args:
        settings: What the program was asked for.
        found: What it answered.
        size: Height and width of the images [px].
    """
    if isinstance(settings, DenseRun):
        return (Step("network", torch.ones(len(found.labels), dtype=torch.float64)),)
    levels = torch.from_numpy(found.levels)
    if isinstance(settings, CoarseToFineRun):
        return tuple(_refinements(settings, levels, found.passes, size))
    last = Plan(levels, settings.tile, size)
    if isinstance(settings, PlannedRun):
        return (Step("network", last.work, last),)
    coarse = torch.from_numpy(found.work) - last.work
    whole = not isinstance(settings, RefinedRun) and settings.budget >= 1
    first = () if whole else (Step("coarse", coarse),)
    return (*first, Step("network", last.work, last))


def _refinements(settings: CoarseToFineRun, levels: Tensor, count: int, size: tuple[int, int]) -> list[Step]:
    """List the passes of coarse to fine."""
    level = settings.coarse_level if count else 0  # at once, without a coarse pass, if that saves nothing
    first = Plan.uniform(len(levels), size, settings.tile, level)
    steps = [Step("coarse", first.work, first)]
    finest = level - 1 if not settings.direct else 0
    for finer in range(finest, finest - count + 1, -1):
        chosen = torch.where((levels >= 0) & (levels <= finer), finer, SKIP).to(torch.int8)
        plan = Plan(chosen, settings.tile, size)
        steps.append(Step("refine", plan.work, plan))
    return steps


def _run(program: Program, image: Tensor, settings: Settings, **asked: Any) -> ProgramResult:
    """Run a program on as many threads as PyTorch uses, and tell whoever counts what it did.

    Args:
        program: The compiled network.
        image: [N, C, H, W] in 0..1.
        settings: Method and budget.
        asked: What else `Program.run` is asked for.
    """
    array: Any = image.detach().to("cpu", torch.float32).numpy()
    found = program.run(array, settings, threads=torch.get_num_threads(), **asked)
    tell("convolution", found.macs)
    return found


def _logits(found: ProgramResult) -> Tensor:
    assert found.logits is not None, "were asked for"
    return torch.from_numpy(found.logits).permute(0, 3, 1, 2)
