"""The C kernels: built by the machine's own compiler on first use, loaded with ctypes.

Foveal runs without them, in plain PyTorch, several times slower; one warning then says why. They are built
once per source, compiler and processor, and kept in the cache folder; a wheel may bring prebuilt ones.
`FOVEAL_NATIVE=0` switches them off, `FOVEAL_KERNELS` names a library to load instead.
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
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

from foveal.kernels.flags import FLAGS, OPENMP, PREBUILT, architecture
from foveal.kernels.processor import features
from foveal.storage.cache import folder

OBSERVER: ContextVar[Callable[[str, int], None] | None] = ContextVar("observer", default=None)
"""If set, told what every kernel did: "convolution" or "interpolation", and multiply-accumulates [MAC]."""

SOURCES = Path(__file__).with_name("cpu")
HEADERS = Path(__file__).parents[1] / "include"
"""The public header: in the package, so that wheels bring it and the kernels are compiled against it."""
INCLUDE = (f"-I{SOURCES}", f"-I{HEADERS}")


class CannotBuild(RuntimeError):
    """The kernels cannot be compiled here; the message says why, and what to do."""


class Library(NamedTuple):
    """The kernels, or why there are none.

    Attributes:
        kernels: The library; None without one.
        name: What was built, for things that depend on it.
        why_not: Why there is none, in a sentence; empty with one.
    """

    kernels: ctypes.CDLL | None
    name: str
    why_not: str


@cache
def library() -> Library:
    """Load the kernels, building them if need be; warn once where that is impossible."""
    if os.environ.get("FOVEAL_NATIVE", "1") == "0":
        return Library(None, "none", "FOVEAL_NATIVE=0 switches them off")
    try:
        path = _locate()
        return Library(ctypes.CDLL(str(path)), path.stem.removeprefix("kernels-"), "")
    except (OSError, CannotBuild) as error:
        reason = " ".join(str(error).split())
    warnings.warn(
        f"foveal runs without its C kernels, several times slower: {reason}", RuntimeWarning, stacklevel=2
    )
    return Library(None, "none", reason)


def available() -> bool:
    """Whether the kernels can be used here."""
    return library().kernels is not None


def why_not() -> str:
    """Say in a sentence why the kernels cannot be used here; empty if they can."""
    return library().why_not


def loaded() -> ctypes.CDLL:
    """Return the kernels.

    Raises:
        RuntimeError: They are not available.
    """
    kernels = library().kernels
    if kernels is None:
        raise RuntimeError(f"the C kernels are not available: {why_not()}")
    return kernels


def built() -> str:
    """Name what was built, for things that depend on it; "none" without kernels."""
    return library().name


def _locate() -> Path:
    """Find the library to load: the one that is named, or built, or brought by the package."""
    given = os.environ.get("FOVEAL_KERNELS")
    if given:
        return Path(given)
    try:
        return build()
    except CannotBuild:
        path = prebuilt()
        if path is None:
            raise
        return path


def prebuilt() -> Path | None:
    """Find the kernels that the package brings for this processor, if it brings any."""
    found = features()
    for target, feature in PREBUILT.items():
        path = SOURCES / f"foveal-{sys.platform}-{target}.so"
        if path.is_file() and feature in found:
            return path
    return None


def build(target: str = "native", path: Path | None = None) -> Path:
    """Compile the kernels.

    Args:
        target: Processor in the words of the compiler's `-march`.
        path: File to write; one in the cache, which is left as it is if it is there, if absent.

    Returns:
        The library.

    Raises:
        CannotBuild: There is no compiler, it fails, or the cache folder cannot be written.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if compiler is None:
        raise CannotBuild("there is no C compiler; install gcc or clang, or name one in CC")
    openmp = _openmp()
    path = path or folder() / f"kernels-{_key(compiler, target, openmp)}.so"
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            _compile(compiler, architecture(target), openmp, Path(scratch)).replace(path)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or [""]
        said = next((line for line in lines if "error" in line), lines[0])[:300]
        raise CannotBuild(f"{compiler} failed ({said}); name another compiler in CC") from None
    except subprocess.SubprocessError as error:
        raise CannotBuild(f"{compiler} failed ({error}); name another compiler in CC") from None
    except OSError as error:
        raise CannotBuild(
            f"the kernels cannot be built in {path.parent} with {compiler} ({error}); name a folder that can "
            "be written in FOVEAL_CACHE, and a compiler in CC"
        ) from None
    return path


def _compile(compiler: str, arch: str, openmp: str | None, scratch: Path) -> Path:
    """Compile and link all sources in a folder."""
    objects = []
    for source in sorted(SOURCES.rglob("*.c")):
        objects.append(str(scratch / f"{'-'.join(source.relative_to(SOURCES).parts)}.o"))
        threads = [OPENMP] if openmp else []
        _run([compiler, *FLAGS, *INCLUDE, arch, *threads, "-c", str(source), "-o", objects[-1]])
    linked = scratch / "kernels.so"
    _run([compiler, "-shared", "-o", str(linked), *objects, *([openmp] if openmp else []), "-lm"])
    return linked


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def _openmp() -> str | None:
    """Find the OpenMP library that PyTorch has loaded: two of them in a process fight for the cores."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return None
    files = {line.split(maxsplit=5)[5].strip() for line in maps.read_text().splitlines() if "gomp" in line}
    return min(files, default=None)


def _key(compiler: str, target: str, openmp: str | None) -> str:
    """Name what a build depends on."""
    parts = [compiler, target, str(openmp), platform.machine(), " ".join(sorted(features())), *FLAGS]
    text = "\n".join(parts).encode() + b"".join(
        str(f.relative_to(HEADERS.parent)).encode() + f.read_bytes()
        for f in sorted((*SOURCES.rglob("*"), *HEADERS.rglob("*")))
        if f.suffix in (".c", ".h")
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
