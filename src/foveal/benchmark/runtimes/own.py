"""This package's own dense network: its compiled program, or in f32 its layers joined, on our kernels."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from foveal.benchmark.runtimes.case import Backend, Case, Runtime, Variant, fastest
from foveal.calibration.engine import Precision
from foveal.fusion import faster
from foveal.methods.compiled import CompiledNetwork
from foveal.ops import tuning
from foveal.program import NotCompiled, Program
from foveal.program.compile import compile_network
from foveal.program.quantise import find_scales, in_bf16, in_int8

OWN = "foveal"


def _runtime(network: nn.Module, settings: str) -> Runtime:
    """Make a runtime of a module on our kernels."""

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        return network(image)

    return Runtime(run, torch.channels_last, settings)


def _program(program: Program, precision: Precision) -> Runtime:
    return _runtime(CompiledNetwork(program), f"program {precision}, channels last")


def _f32(case: Case) -> Runtime:
    """Run the program or the layers joined, whichever is faster."""
    joined = _runtime(faster(copy.deepcopy(case.network)), "layers joined, channels last")
    with tuning():
        joined.run(joined.lay(case.image))
    try:
        program = compile_network(case.network)
    except (NotCompiled, RuntimeError):
        return joined
    return fastest({"program": _program(program, "f32"), "joined": joined}, case.image)


def _bf16(case: Case) -> Runtime:
    return _program(in_bf16(compile_network(case.network)), "bf16")


def _int8(case: Case) -> Runtime:
    program = compile_network(case.network)
    scales = find_scales(program, [image.numpy() for image in case.calibration])
    return _program(in_int8(program, scales), "int8")


BACKEND = Backend(
    "this package's dense network", {"f32": Variant(_f32), "bf16": Variant(_bf16), "int8": Variant(_int8)}
)
