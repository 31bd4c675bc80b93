"""Engines of our own rows: a network in every precision that it has a compiled program in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foveal.benchmark.runtimes import Precision
from foveal.calibration.engine import Engine, find_engine
from foveal.hub.checkpoint import Model
from foveal.program.quantise import Scales


def find_engines(
    model: Model, precisions: Sequence[Precision], find_scales: Callable[[], Scales | None]
) -> tuple[list[Engine], list[str]]:
    """Make what runs a network in every precision.

    Args:
        model: The network.
        precisions: f32, bf16, int8.
        find_scales: Says how int8 is written, called if it is asked for; None for the model's own profile.

    Returns:
        Engines in the order of the precisions, and sentences about programs that there cannot be.
    """
    engines, sentences = [], []
    for precision in precisions:
        try:
            engine = find_engine(model, precision, find_scales() if precision == "int8" else None)
        except ValueError as error:
            sentences.append(str(error))
            continue
        engines.append(engine)
        if engine.warning:
            sentences.append(engine.warning)
    return engines, sentences
