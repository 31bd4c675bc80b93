"""What the processor of this machine is called, and what it can do."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
INSTRUCTION_SETS = (
    *("avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
"""Features that decide how fast a network is, x86 and ARM."""
MULTIPLIES_BYTES = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}
"""Instruction sets with exact products of 8-bit integers summed in 32 bits."""


def processor() -> str:
    """Return the name of the processor; its architecture where the system tells no name."""
    return _field("model name") or platform.processor() or platform.machine()


def features() -> frozenset[str]:
    """Return the features of the processor in the system's words, such as "avx2"; empty if unknown."""
    return frozenset((_field("flags") or _field("Features")).split())


def instruction_sets() -> tuple[str, ...]:
    """Return those of `INSTRUCTION_SETS` that the processor has."""
    known = features()
    return tuple(name for name in INSTRUCTION_SETS if name in known)


@cache
def _field(name: str) -> str:
    """Read the first value of a field that the system tells about its processors; empty without one."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    found = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name)
    return next(found, "")
