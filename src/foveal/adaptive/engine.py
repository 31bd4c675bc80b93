"""What runs an adaptive model: its compiled program, or its layers one by one in PyTorch, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveal.adaptive.prepared import PaddedNetwork, PreparedNetwork
from foveal.adaptive.spec import Specification
from foveal.calibration.engine import Engine
from foveal.fusion import CannotFuse, fuse
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.program.compile import compile_fused
from foveal.program.quantise import Scales


def describe_model(prepared: PreparedNetwork, spec: Specification, file: Path | None = None) -> Model:
    """Describe an adaptive model as calibration and latency know trained networks."""
    card = Card(spec.name, spec.classes, spec.palette, spec.tile, spec.coarse_level, spec.coarse_level)
    network: Any = _padded(prepared, spec)
    return Model(spec.name, network, card, file=file)


def build_engine(prepared: PreparedNetwork, spec: Specification, scales: Scales | None = None) -> Engine:
    """Join the layers of a network, and compile it where that is possible.

    Args:
        prepared: The network with its preprocessing.
        spec: What is known about it; its precision is what the program computes in.
        scales: How the program is written in 8 bits, for int8.

    Raises:
        ValueError: A precision other than f32 is asked for, and there is no program in it.
    """
    model = describe_model(prepared, spec)
    fused: nn.Module = prepared
    program, why_not = None, _obstacle(prepared)
    try:
        fused = fuse(prepared)
        program = None if why_not else compile_fused(fused, multiple=spec.shape.multiple)
    except CannotFuse as error:
        why_not = why_not or str(error)
    except Exception as error:  # a graph of any network may hold anything
        why_not = " ".join(str(error).split()) or type(error).__name__
    plain = Engine(model, _padded(fused, spec).eval(), program, why_not=why_not)
    if spec.precision == "f32":
        return plain
    if spec.precision == "int8" and scales is None and program is not None:
        raise ValueError(
            f'{spec.name} has no ranges for int8 yet; call model.calibrate(images, precision="int8")'
        )
    try:
        return plain.in_precision(spec.precision, scales)
    except ValueError as error:
        raise ValueError(f"{error}; precision f32 runs every network") from None


def _obstacle(prepared: PreparedNetwork) -> str:
    """Say why there is no program, whatever the network's layers are; empty if there may be one."""
    like = next(iter(prepared.network.parameters()), torch.empty(0))
    if like.device.type != "cpu":
        return f"programs run on the CPU, and the network is on {like.device}"
    if like.dtype != torch.float32:
        kind = str(like.dtype).removeprefix("torch.")
        return f'programs are made from float32 weights, and these are {kind}; use precision="bf16" instead'
    return ""


def _padded(network: nn.Module, spec: Specification) -> nn.Module:
    """Let a network take images of any sides, if it does not by itself."""
    if spec.shape.multiple == 1:
        return network
    return PaddedNetwork(network, spec.shape, spec.preprocess)
