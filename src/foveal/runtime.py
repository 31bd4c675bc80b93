"""Run program files with NumPy and the C kernels alone: nothing that is imported here needs PyTorch.

>>> from foveal.runtime import load_program
>>> program = load_program("camvid_rn18.foveal")                      # doctest: +SKIP
>>> program.run(image, program.info.run.coarse_to_fine(0.3)).labels   # doctest: +SKIP
"""

from __future__ import annotations

from foveal.program.info import ProgramInfo, RunDefaults
from foveal.program.run import Program, ProgramResult, load_program
from foveal.program.settings import CoarseToFineRun, DenseRun, PlannedRun, ReuseRun, SegBlocksRun
from foveal.program.stream import SceneBegins, Stream

__all__ = [
    "CoarseToFineRun",
    "DenseRun",
    "PlannedRun",
    "Program",
    "ProgramInfo",
    "ProgramResult",
    "ReuseRun",
    "RunDefaults",
    "SceneBegins",
    "SegBlocksRun",
    "Stream",
    "load_program",
]
