"""This package's own dense network, layers joined, on our kernels."""

from __future__ import annotations

import copy

import torch
from torch import nn

from foveal.benchmark.runtimes.case import Backend, Case, Runtime, Variant
from foveal.fusion import faster
from foveal.ops import tuning

OWN = "foveal"


def own_runtime(network: nn.Module) -> Runtime:
    """Make a runtime of a network from `foveal.fusion.faster`."""
    run = torch.inference_mode()(network.forward)
    return Runtime(run, torch.channels_last, "layers joined, channels last")


def _f32(case: Case) -> Runtime:
    runtime = own_runtime(faster(copy.deepcopy(case.network)))
    with tuning():
        runtime.run(runtime.lay(case.image))
    return runtime


ABSENT = "the engine's own kernels compute in f32"
BACKEND = Backend("this package's dense network", {"f32": Variant(_f32)}, {"bf16": ABSENT, "int8": ABSENT})
