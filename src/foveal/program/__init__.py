"""A method on a compiled network as one native call: no Python, no allocation and no copy between layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foveal.program.builder import NotCompiled
from foveal.program.info import ProgramInfo, RunDefaults
from foveal.program.run import Program, ProgramResult, load_program
from foveal.program.settings import (
    CoarseToFineRun,
    DenseRun,
    PlannedRun,
    RefinedRun,
    ReuseRun,
    SegBlocksRun,
)
from foveal.program.stream import Stream

if TYPE_CHECKING:
    from foveal.program.compile import compile_network

__all__ = [
    "CoarseToFineRun",
    "DenseRun",
    "NotCompiled",
    "PlannedRun",
    "Program",
    "ProgramInfo",
    "ProgramResult",
    "RefinedRun",
    "ReuseRun",
    "RunDefaults",
    "SegBlocksRun",
    "Stream",
    "compile_network",
    "load_program",
]


def __getattr__(name: str) -> Any:
    """Import the compiler when it is asked for: it needs PyTorch, running a program does not."""
    if name == "compile_network":
        from foveal.program.compile import compile_network

        return compile_network
    raise AttributeError(f"module 'foveal.program' has no attribute '{name}'")
