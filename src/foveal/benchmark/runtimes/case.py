"""What a static runtime is prepared for, what comes out, and how its choices are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from foveal.calibration.engine import Precision
from foveal.cost import alternate

TRIALS = 5
"""Timed runs of every choice that a runtime leaves."""


@dataclass(frozen=True)
class Case:
    """What a runtime is prepared for: one network and one shape of images.

    Attributes:
        network: The dense network from `fold_norms`, in evaluation mode; runtimes copy what they change.
        image: [N, 3, H, W] in 0..1, contiguous.
        threads: Threads of the processor.
        folder: Place for files, shared by the runtimes of this case.
        calibration: Images [N, 3, H, W] of the same shape that int8 takes its ranges from.
    """

    network: nn.Module
    image: Tensor
    threads: int
    folder: Path
    calibration: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Runtime:
    """A network that is ready to run.

    Attributes:
        run: From an image that `lay` returned, of the case's shape, to logits [N, K, h, w], which are valid
            until the next call.
        layout: Memory format in which it takes images.
        settings: What was chosen where the runtime leaves a choice.
    """

    run: Callable[[Tensor], Tensor]
    layout: torch.memory_format = torch.contiguous_format
    settings: str = ""

    def lay(self, image: Tensor) -> Tensor:
        """Copy an image [N, 3, H, W] into the runtime's layout, as an ordinary tensor."""
        with torch.inference_mode(False):
            return image.clone(memory_format=self.layout)


@dataclass(frozen=True)
class Variant:
    """A runtime in one precision.

    Attributes:
        prepare: Makes it ready for a case.
        packages: Modules that must be installed.
        obstacle: Says what else must be done before it can run; empty if nothing.
    """

    prepare: Callable[[Case], Runtime]
    packages: tuple[str, ...] = ()
    obstacle: Callable[[], str] = field(default=lambda: "")


@dataclass(frozen=True)
class Backend:
    """A runtime of the table.

    Attributes:
        description: One line about it.
        variants: By precision.
        absent: Why the other precisions do not exist.
    """

    description: str
    variants: Mapping[Precision, Variant]
    absent: Mapping[Precision, str] = field(default_factory=dict)


def fastest(choices: Mapping[str, Runtime], image: Tensor) -> Runtime:
    """Measure every choice alone, and return the fastest."""
    times = {}
    for name, runtime in choices.items():
        run = partial(runtime.run, runtime.lay(image))
        times[name] = alternate({name: run}, TRIALS, warmup=1)[name].median
    return choices[min(times, key=lambda name: times[name])]


@torch.inference_mode()
def most_faithful(choices: Mapping[str, Runtime], case: Case) -> str:
    """Return the name of the choice whose labels agree best with the network's in f32, on its calibration."""
    scores = dict.fromkeys(choices, 0.0)
    for image in case.calibration:
        expected = case.network(image).argmax(1)
        for name, runtime in choices.items():
            scores[name] += float((runtime.run(runtime.lay(image)).argmax(1) == expected).double().mean())
    return max(scores, key=lambda name: scores[name])


def difference(logits: Tensor, reference: Tensor) -> float:
    """Largest absolute difference of logits [N, K, h, w], as a share of the largest absolute value."""
    return float((logits - reference).abs().max() / reference.abs().max())
