"""What runs an adaptive model: its compiled program, or its layers one by one in PyTorch, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from foveal.adaptive.prepared import PreparedNetwork
from foveal.adaptive.spec import Specification
from foveal.calibration.engine import Engine, find_engine
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.methods.padding import PaddedNetwork
from foveal.program.quantise import Scales


def describe_model(prepared: PreparedNetwork, spec: Specification, file: Path | None = None) -> Model:
    """Describe an adaptive model as calibration and latency know trained networks."""
    card = Card(spec.name, spec.classes, spec.palette, spec.tile, spec.coarse_level, spec.coarse_level)
    whole: Any = prepared
    if spec.shape.multiple > 1:
        whole = PaddedNetwork(prepared, spec.shape.multiple, spec.preprocess.padded)
    return Model(spec.name, whole.train(prepared.training), card, file=file)


def build_engine(
    prepared: PreparedNetwork,
    spec: Specification,
    scales: Scales | None = None,
    small: Model | None = None,
) -> Engine:
    """Join the layers of a network, and compile it where that is possible.

    Args:
        prepared: The network with its preprocessing.
        spec: What is known about it; its precision is what the program computes in.
        scales: How the program is written in 8 bits, for int8.
        small: A small network for the same classes.

    Raises:
        ValueError: A precision other than f32 is asked for, and there is no program in it.
    """
    plain = find_engine(replace(describe_model(prepared, spec), small=small))
    if spec.precision == "f32":
        return plain
    if spec.precision == "int8" and scales is None and plain.program is not None:
        raise ValueError(
            f'{spec.name} has no ranges for int8 yet; call model.calibrate(images, precision="int8")'
        )
    try:
        return plain.in_precision(spec.precision, scales)
    except ValueError as error:
        raise ValueError(f"{error}; precision f32 runs every network") from None


def stamp_of(network: nn.Module) -> tuple[object, ...]:
    """Say which weights a network has, so that a change is noticed; those of inference mode have no count."""
    tensors = (*network.parameters(), *network.buffers())
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
