"""The C kernels: built by the machine's own compiler on first use, loaded with ctypes.

Foveal runs without them, in plain PyTorch. They are built once per source, compiler and processor, and kept
in `FOVEAL_CACHE` (else `~/.cache/foveal`); a wheel may bring prebuilt ones. `FOVEAL_NATIVE=0` switches them
off, `FOVEAL_KERNELS` names a library to load instead.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

OBSERVER: ContextVar[Callable[[str, int], None] | None] = ContextVar("observer", default=None)
"""If set, told what every kernel did: "convolution" or "interpolation", and multiply-accumulates [MAC]."""

SOURCES = Path(__file__).with_name("cpu")
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden", "-fno-math-errno")
PREBUILT = {"x86-64-v4": "avx512f", "x86-64-v3": "avx2", "aarch64": "asimd"}
"""Targets that wheels bring, best first, and the processor feature that each needs."""


def folder() -> Path:
    """Return the folder for what is built or measured once per machine."""
    return Path(os.environ.get("FOVEAL_CACHE") or Path.home() / ".cache" / "foveal")


@cache
def library() -> ctypes.CDLL | None:
    """Load the kernels, building them if need be; None where that is switched off or impossible."""
    if os.environ.get("FOVEAL_NATIVE", "1") == "0":
        return None
    given = os.environ.get("FOVEAL_KERNELS")
    path = Path(given) if given else build() or prebuilt()
    try:
        return None if path is None else ctypes.CDLL(str(path))
    except OSError:
        return None


def available() -> bool:
    """Whether the kernels can be used here."""
    return library() is not None


def loaded() -> ctypes.CDLL:
    """Return the kernels.

    Raises:
        RuntimeError: They are not available.
    """
    kernels = library()
    if kernels is None:
        raise RuntimeError("the C kernels are not available: no compiler, or FOVEAL_NATIVE=0")
    return kernels


@cache
def built() -> str:
    """Name what was built, for things that depend on it."""
    kernels = library()
    return "none" if kernels is None else Path(kernels._name).stem.removeprefix("kernels-")


def prebuilt() -> Path | None:
    """Find the kernels that the package brings for this processor, if it brings any."""
    features = _features()
    for target, feature in PREBUILT.items():
        path = SOURCES / f"foveal-{sys.platform}-{target}.so"
        if path.is_file() and feature in features:
            return path
    return None


def build(target: str = "native", path: Path | None = None) -> Path | None:
    """Compile the kernels.

    Args:
        target: Processor in the words of the compiler's `-march`.
        path: File to write; one in the cache, which is left as it is if it is there, if absent.

    Returns:
        The library; None without a compiler, or where it fails.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if compiler is None:
        return None
    openmp = _openmp()
    path = path or folder() / f"kernels-{_key(compiler, target, openmp)}.so"
    if path.is_file():
        return path
    threads = [*(["-fopenmp"] if openmp else [])]
    arch = "armv8-a" if target == "aarch64" else target
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            objects = [str(Path(scratch) / f"{source.stem}.o") for source in sorted(SOURCES.glob("*.c"))]
            for source, compiled in zip(sorted(SOURCES.glob("*.c")), objects, strict=True):
                _run([compiler, *FLAGS, f"-march={arch}", *threads, "-c", str(source), "-o", compiled])
            linked = str(Path(scratch) / "kernels.so")
            _run([compiler, "-shared", "-o", linked, *objects, *([openmp] if openmp else []), "-lm"])
            Path(linked).replace(path)
    except (OSError, subprocess.SubprocessError):
        return None
    return path


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def _openmp() -> str | None:
    """Find the OpenMP library that PyTorch has loaded: two of them in a process fight for the cores."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return None
    files = {line.split(maxsplit=5)[5].strip() for line in maps.read_text().splitlines() if "gomp" in line}
    return min(files, default=None)


def _features() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _key(compiler: str, target: str, openmp: str | None) -> str:
    """Name what a build depends on."""
    parts = [compiler, target, str(openmp), platform.machine(), _features(), *FLAGS]
    text = "\n".join(parts).encode() + b"".join(
        f.read_bytes() for f in sorted(SOURCES.iterdir()) if f.suffix in ".c.h"
    )
    return hashlib.sha256(text).hexdigest()[:16]


def tell(kind: str, macs: int) -> None:
    """Tell the observer, if there is one, what a kernel did: PyTorch's dispatcher does not see it."""
    observer = OBSERVER.get()
    if observer is not None:
        observer(kind, macs)


def pointer(x: torch.Tensor | None) -> int | None:
    """Address of a tensor's first element."""
    return None if x is None else x.data_ptr()
