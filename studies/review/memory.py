"""What a process of its own runs, to see what memory a method takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from foveal.adaptive.opening import Reference, open_model
from foveal.calibration.configure import configure
from foveal.calibration.engine import Engine, find_engine
from foveal.methods.compiled_stages import CompiledStages
from foveal.program import Program


def runner(
    network: str, small: str, method: str, settings: Mapping[str, object], budget: float, image: Tensor
) -> Callable[[], None]:
    """Return what segments one image [C, H, W] up to the labels, and keeps no memory for the next one."""
    model = open_model(Reference(network, trusted=True, small=small))
    engine = find_engine(model)
    made = engine.make(method, configure(model, method, budget, settings), model.resources)

    def run() -> None:
        made.labels(image[None])
        for program in _programs(engine, made):
            program.release()

    return run


def _programs(engine: Engine, method: object) -> Iterator[Program]:
    """Find the programs that a method may have run."""
    engines = [engine, *([engine.small] if engine.small is not None else [])]
    yield from (each.program for each in engines if each.program is not None)
    inner: object | None = method
    while inner is not None:
        stages = getattr(inner, "compiled", None)
        if isinstance(stages, CompiledStages):
            yield stages.program.program
        inner = getattr(inner, "method", None)
