"""Engines of our own rows: a network in every precision that it has a compiled program in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foveal.benchmark.runtimes import Precision
from foveal.calibration.engine import Engine, find_engine
from foveal.hub.checkpoint import Model
from foveal.program.quantise import Scales


def find_engines(
    model: Model, precisions: Sequence[Precision], find_scales: Callable[[Engine], Scales | None]
) -> tuple[list[Engine], list[str]]:
    """Make what runs a network in every precision.

    Args:
        model: The network.
        precisions: f32, bf16, int8.
        find_scales: Says how int8 is written, from what runs the network in f32; called if int8 is asked for.
            None for the model's own profile.

    Returns:
        Engines in the order of the precisions, and sentences about programs that there cannot be.
    """
    plain = find_engine(model)
    engines, sentences = [], []
    for precision in precisions:
        try:
            scales = find_scales(plain) if precision == "int8" else None
            engine = plain if precision == "f32" else plain.in_precision(precision, scales)
        except ValueError as error:
            sentences.append(str(error))
            continue
        engines.append(engine)
        if engine.warning:
            sentences.append(engine.warning)
    return engines, sentences
