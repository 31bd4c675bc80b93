"""What the processor is called and which of the instructions that matter here it has."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTION_SETS = (
    *("avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
"""Flags of /proc/cpuinfo that decide how fast a network is, x86 and ARM."""
MULTIPLIES_BYTES = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}
"""Instruction sets with exact products of 8-bit integers summed in 32 bits."""


def processor_name() -> str:
    """Return the name of the processor, as the system gives it."""
    return _field("model name") or platform.processor() or platform.machine()


def processor_flags() -> str:
    """Return all features that the system lists, in one line; empty where it lists none."""
    return _field("flags") or _field("Features")


def instruction_sets() -> tuple[str, ...]:
    """Return those of `INSTRUCTION_SETS` that the processor has."""
    flags = set(processor_flags().split())
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


@cache
def _field(key: str) -> str:
    """Return the first value of a key of /proc/cpuinfo; empty if there is none."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == key), "")
