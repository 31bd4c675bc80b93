"""What a frontier and a bench compare: static runtimes on the shrunk image, and adaptive methods.

A contender is prepared for one size of images and then turns an image into labels at that size. Whatever can
do so may take part; it needs no base class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from foveal.benchmark.masked import Masked
from foveal.benchmark.runtimes import OWN, Case, Choice, Precision, Runtime, prepare
from foveal.calibration.engine import Engine
from foveal.calibration.latency import Setup
from foveal.cost import alternate
from foveal.geometry.mask import Mask, read_mask
from foveal.kernels.threads import let_threads_go
from foveal.methods import AdaptiveSegmenter, DenseConfig, MethodConfig
from foveal.methods.scaling import (
    Shrinking,
    Size,
    enlarge_logits,
    shrink,
    shrinking_ways,
    shrunk_size,
)
from foveal.ops import classify, tuning

TRIALS = 5
"""Timed runs of every way from a runtime to labels."""

Kind = Literal["static", "adaptive"]


@dataclass(frozen=True)
class Labeller:
    """A contender that is ready for one size of images.

    Attributes:
        run: From images [N, 3, H, W] that `lay` returned to labels [N, H, W], uint8.
        layout: Memory format in which it takes images.
        settings: What was chosen where something is left to choose.
    """

    run: Callable[[Tensor], Tensor]
    layout: torch.memory_format = torch.contiguous_format
    settings: str = ""

    def lay(self, image: Tensor) -> Tensor:
        """Copy an image into the layout."""
        return image.clone(memory_format=self.layout)


class Contender(Protocol):
    """A row of a frontier."""

    @property
    def name(self) -> str:
        """Runtime or method."""
        ...

    @property
    def kind(self) -> Kind:
        """Which of the two curves it belongs to."""
        ...

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        ...

    @property
    def setting(self) -> float:
        """Scale of the image if static, else budget."""
        ...

    @property
    def scale(self) -> float:
        """Share of the image's sides that it sees."""
        ...

    def prepare(self, size: Size) -> Labeller:
        """Prepare for images of a size [px].

        Raises:
            ValueError: It cannot run the network, or the budget pays for no plan.
        """
        ...


@dataclass(frozen=True)
class StaticRivals:
    """What all static contenders share.

    Attributes:
        network: The dense network from `fold_norms`.
        calibration: Images [1, 3, H, W] that int8 takes its ranges from.
        folder: Place for files.
        threads: Threads of the processor.
    """

    network: nn.Module
    calibration: Sequence[Tensor]
    folder: Path
    threads: int


@dataclass(frozen=True)
class StaticContender:
    """A runtime on the whole image, shrunk by a scale of its sides.

    Attributes:
        choice: Runtime and precision.
        setting: Scale, above 0 and at most 1.
        shared: What it has in common with the others.
    """

    choice: Choice
    setting: float
    shared: StaticRivals = field(repr=False)
    kind: Kind = "static"

    @property
    def name(self) -> str:
        """Name of the runtime."""
        return self.choice.runtime

    @property
    def precision(self) -> Precision:
        """Precision of the runtime."""
        return self.choice.precision

    @property
    def scale(self) -> float:
        """Its setting."""
        return self.setting

    def prepare(self, size: Size) -> Labeller:
        """Compile the network for the shrunk size, and find the fastest way to shrink."""
        sides = shrunk_size(size, self.setting)
        folder = self.shared.folder / "x".join(map(str, sides))
        folder.mkdir(exist_ok=True)
        images = (
            [shrink(image, sides) for image in self.shared.calibration] if self.precision == "int8" else []
        )
        images = [image for image in images if image.shape[2:] == sides]
        channels = getattr(self.shared.network, "in_channels", 3)
        example = torch.rand(1, channels, *sides, generator=torch.Generator().manual_seed(0))
        runtime = prepare(
            self.choice, Case(self.shared.network, example, self.shared.threads, folder, images)
        )
        return static_labeller(runtime, example, size)


@dataclass(frozen=True)
class OwnContender:
    """This package's dense network on the whole image, shrunk by a scale of its sides: all of it one call.

    Attributes:
        engine: Runs the network, as a compiled program where there is one.
        setting: Scale, above 0 and at most 1.
    """

    engine: Engine = field(repr=False)
    setting: float
    kind: Kind = "static"
    name: str = OWN

    @property
    def precision(self) -> Precision:
        """Precision of the engine."""
        return self.engine.precision

    @property
    def scale(self) -> float:
        """Its setting."""
        return self.setting

    def prepare(self, size: Size) -> Labeller:
        """Make the dense network at the scale, and run it once: kernels are chosen."""
        method = self.engine.make("dense", DenseConfig(scale=self.setting))
        return _tuned(adaptive_labeller(method, self.engine.name), self.engine.channels, size)


@dataclass(frozen=True)
class AdaptiveContender:
    """A method at a budget.

    Attributes:
        name: Name in `foveal.methods.METHODS`.
        engine: Runs the network, as a compiled program where there is one.
        config: Settings of the method.
        mask: What is wanted of the images; all of it if absent.
    """

    name: str
    engine: Engine = field(repr=False)
    config: MethodConfig
    kind: Kind = "adaptive"
    mask: Mask | None = field(default=None, repr=False)

    @property
    def precision(self) -> Precision:
        """Precision of the engine."""
        return self.engine.precision

    @property
    def setting(self) -> float:
        """Budget."""
        return self.config.budget

    @property
    def scale(self) -> float:
        """Scale of the config."""
        return self.config.scale

    def make(self) -> AdaptiveSegmenter:
        """Make the method.

        Raises:
            ValueError: The config does not fit the network, or the precision not the method.
        """
        resources = self.engine.model.resources
        if self.mask is None:
            return self.engine.make(self.name, self.config, resources)
        setup = Setup(self.engine, self.name, self.config, resources)
        return setup.make_for_mask(self.config.budget, self.config.is_dense)

    def and_masked(self, wanted: Tensor | None, image: Tensor) -> list[AdaptiveContender]:
        """Return this one and, if only some pixels [N, H, W] are wanted, the same under that mask."""
        if wanted is None:
            return [self]
        tile, size = self.config.whole("tile", self.engine.model.card.tile), (image.shape[2], image.shape[3])
        return [self, replace(self, mask=read_mask(wanted, image, size, tile, 0))]

    def prepare(self, size: Size) -> Labeller:
        """Make the method, and run it once: kernels are chosen, and a budget that is too small is refused."""
        return _tuned(adaptive_labeller(self.make(), self.config.title), self.engine.channels, size)


def adaptive_labeller(method: AdaptiveSegmenter | Masked, settings: str) -> Labeller:
    """Let a method turn images into labels."""
    return Labeller(torch.inference_mode()(method.labels), torch.channels_last, settings)


def _tuned(labeller: Labeller, channels: int, size: Size) -> Labeller:
    """Run a labeller once on an image of a size [px]: kernels are chosen."""
    with tuning():
        labeller.run(labeller.lay(torch.rand(1, channels, *size)))
    return labeller


def static_labeller(runtime: Runtime, example: Tensor, size: Size) -> Labeller:
    """Let a runtime turn images of a size [px] into labels, in the fastest way.

    Ways differ in how an image is shrunk, and in the threads that shrink it and find the labels: to start
    threads of PyTorch beside those of a runtime may cost more than they save.

    Args:
        runtime: Takes images like `example`.
        example: [N, C, h, w]; smaller than `size` if images are shrunk for the runtime.
        size: Height and width of the images that come, and of the labels.
    """
    batch, channels, *sides = example.shape
    shrunk = tuple(sides) != size
    ways = [Shrinking("", runtime.layout, lambda image: image)]
    if shrunk:
        ways = shrinking_ways(size, (sides[0], sides[1]))
    counts = sorted({1, torch.get_num_threads()})
    choices = {(way.name, n): _around(runtime, way, size, shrunk, n) for way in ways for n in counts}
    image, times = torch.rand(batch, channels, *size), {}
    for name, labeller in choices.items():
        run = partial(labeller.run, labeller.lay(image))
        times[name] = alternate({"": run}, TRIALS, warmup=1)[""].median
    return choices[min(times, key=lambda name: times[name])]


def _around(runtime: Runtime, way: Shrinking, size: Size, shrunk: bool, threads: int) -> Labeller:
    """Put shrinking before a runtime, and after it the enlarging of its logits, and labels."""

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        with torch_threads(threads):
            small = way.run(image).contiguous(memory_format=runtime.layout)
        if shrunk and threads > 1:
            let_threads_go()  # those that shrank spin on, and the runtime has its own
        logits = runtime.run(small)
        with torch_threads(threads):
            return classify(enlarge_logits(logits, size) if shrunk else logits, size)

    said = [runtime.settings, way.name, f"labels by {threads} thread{'s' if threads > 1 else ''}"]
    return Labeller(run, way.layout, "; ".join(filter(None, said)))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch compute on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
