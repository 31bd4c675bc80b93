"""Adaptive contenders that run as compiled programs, in every precision that kernels have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from foveal.benchmark.contenders import Kind, Labeller, Size
from foveal.benchmark.runtimes import Precision
from foveal.methods import MethodConfig
from foveal.program import (
    NotCompiled,
    Program,
    compile_network,
)
from foveal.program.quantise import find_scales, in_bf16, in_int8
from foveal.program.settings import Settings


@dataclass(frozen=True)
class ProgramContender:
    """A method as one native call.

    Attributes:
        name: Name in `foveal.methods.METHODS`.
        program: The compiled network.
        config: Settings of the method.
        precision: f32, bf16 or int8.
    """

    name: str
    program: Program = field(repr=False)
    config: MethodConfig
    precision: Precision = "f32"
    kind: Kind = "adaptive"

    @property
    def setting(self) -> float:
        """Budget."""
        return self.config.budget

    def prepare(self, size: Size) -> Labeller:
        """Run once: memory is taken, and a budget that is too small is refused."""
        settings = run_settings(self.config)

        def run(image: Tensor) -> Tensor:
            return torch.from_numpy(self.program.run(image.numpy(), settings).labels)

        labeller = Labeller(run, torch.channels_last, self.config.title)
        run(labeller.lay(torch.rand(1, 3, *size)))
        return labeller


def run_settings(config: MethodConfig) -> Settings:
    """Say what a program is asked for, from the config of a method.

    Raises:
        NotCompiled: Programs do not have the method.
    """
    settings = config.program_run()
    if settings is not None:
        return settings
    raise NotCompiled(f"a program has no method {type(config).__name__}")


def compile_programs(
    network: nn.Module, precisions: Sequence[Precision], images: Sequence[Tensor]
) -> tuple[dict[Precision, Program], list[str]]:
    """Compile a network in every precision.

    Args:
        network: The network.
        precisions: f32, bf16, int8.
        images: Images [1, 3, H, W] in 0..1 that ranges are taken from, for all but f32.

    Returns:
        Programs by precision, and sentences about those that there cannot be.
    """
    try:
        program = compile_network(network)
    except NotCompiled as error:
        return {}, [f"the network has no compiled program ({error}); methods run in the eager engine"]
    made: dict[Precision, Program] = {"f32": program} if "f32" in precisions else {}
    unable = []
    for precision in precisions:
        if precision == "f32":
            continue
        try:
            if precision == "bf16":
                made[precision] = in_bf16(program)
            else:
                made[precision] = in_int8(program, find_scales(program, [x.numpy() for x in images]))
        except NotCompiled as error:
            unable.append(f"there is no program in {precision} ({error})")
    return made, unable
