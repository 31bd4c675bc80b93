"""The C kernels: built by the machine's own compiler on first use, loaded with ctypes.

Foveal runs without them, in plain PyTorch, several times slower; one warning then says why. They are built
once per source, compiler and processor, and kept in the cache folder; a wheel may bring prebuilt ones.
The name of a library in the cache ends with the digest of its bytes: one that was damaged, or that another
user put there, is never loaded but built anew.
`FOVEAL_NATIVE=0` switches them off, `FOVEAL_KERNELS` names a library to load instead, which nobody but the
user and the administrator may be able to change.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

from foveal.kernels.flags import FLAGS, OPENMP, PREBUILT, architecture
from foveal.kernels.load import load
from foveal.kernels.processor import features
from foveal.storage.cache import folder, trouble, trouble_above

OBSERVER: ContextVar[Callable[[str, int], None] | None] = ContextVar("observer", default=None)
"""If set, told what every kernel did: "convolution" or "interpolation", and multiply-accumulates [MAC]."""

SOURCES = Path(__file__).with_name("cpu")
HEADERS = Path(__file__).parents[1] / "include"
"""The public header: in the package, so that wheels bring it and the kernels are compiled against it."""


PREFIX = "kernels-"
"""Before the key and the digest of a library in the cache."""
SCRATCH = "build-"
"""Before the number of the process that builds in a folder of the cache, and a name of its own."""
LONG_DEAD = 3600
"""Age from which a folder of a process that is gone is deleted [s]; a build often writes a file."""


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
        name = path.stem.removeprefix(PREFIX)
        return Library(load(path), name if name == path.stem else name.partition("-")[0], "")
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
        path = Path(given).absolute()  # a name alone would be sought among the libraries of the system
        if not path.is_file():
            raise CannotBuild(f"there is no file {path}, which FOVEAL_KERNELS names; unset it to build them")
        wrong = trouble(path, follow=True, root=True) or trouble_above(path)
        if wrong:
            raise CannotBuild(f"FOVEAL_KERNELS names {path}, and {wrong}; name a library that is yours alone")
        return path
    try:
        return build()
    except CannotBuild:
        brought = prebuilt()
        if brought is None:
            raise
        return brought


def prebuilt() -> Path | None:
    """Find the kernels that the package brings for this processor, if it brings any.

    Raises:
        CannotBuild: Somebody can write them who cannot write the package, or another user has put them there.
    """
    found = features()
    for target, feature in PREBUILT.items():
        path = SOURCES / f"foveal-{sys.platform}-{target}.so"
        if path.is_file() and feature in found:
            if not _is_like_the_package(path):
                raise CannotBuild(
                    f"{path} can be changed by users who cannot change the package; install it anew"
                )
            return path
    return None


def _is_like_the_package(path: Path) -> bool:
    """Whether a file is as safe from others as this one: a package that a group may write is that group's."""
    if not hasattr(os, "geteuid"):
        return True
    found, own = path.stat(), Path(__file__).stat()
    return found.st_uid in (own.st_uid, os.geteuid(), 0) and not found.st_mode & ~own.st_mode & 0o022


def build(target: str = "native", path: Path | None = None, extra: Sequence[str] = ()) -> Path:
    """Compile the kernels.

    Args:
        target: Processor in the words of the compiler's `-march`.
        path: File to write; if absent, one in the cache, which is left as it is if it is there and sound.
        extra: Further options of the compiler and the linker.

    Returns:
        The library.

    Raises:
        CannotBuild: There is no compiler, it fails, or the folder cannot be written.
    """
    compiler, openmp = _compiler(), _openmp()
    place, key = (path.parent, "") if path else (folder(), _key([*compiler, *extra], target, openmp))
    found = None if path else _find(place, key)
    if found:
        return found
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not path:
            _clean(place)
        with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-", dir=place) as scratch:
            linked = _compile(compiler, [architecture(target), *extra], openmp, Path(scratch))
            linked.chmod(linked.stat().st_mode & ~0o022)
            return linked.replace(path or place / _name(key, linked))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or [""]
        said = next((line for line in lines if "error" in line), lines[0])[:300]
        raise CannotBuild(f"{compiler[0]} failed ({said}); name another compiler in CC") from None
    except subprocess.SubprocessError as error:
        raise CannotBuild(f"{compiler[0]} failed ({error}); name another compiler in CC") from None
    except OSError as error:
        raise CannotBuild(
            f"the kernels cannot be built in {place} with {compiler[0]} ({error}); name a folder that can be "
            "written in FOVEAL_CACHE, and a compiler in CC"
        ) from None


def _clean(place: Path) -> None:
    """Delete what killed builds left in the cache: folders of this user, by their names, of nobody alive."""
    for path in place.glob(f"{SCRATCH}*-*"):
        number = path.name.removeprefix(SCRATCH).partition("-")[0]
        with suppress(OSError):
            ours = path.is_dir() and not trouble(path) and number.isdecimal()
            if ours and time.time() - path.stat().st_mtime > LONG_DEAD and not _lives(int(number)):
                shutil.rmtree(path)


def _lives(number: int) -> bool:
    """Whether there may be a process of a number on this machine."""
    if not hasattr(os, "geteuid"):  # such a system has no signal that only asks
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a number that no process has
        return True
    return True


def _compiler() -> list[str]:
    """Return the words that call the compiler.

    Raises:
        CannotBuild: There is none, or what CC says cannot be read.
    """
    given = os.environ.get("CC", "").strip()
    if given and not shutil.which(given):  # a program and its options
        try:
            return shlex.split(given)
        except ValueError as error:
            raise CannotBuild(
                f"CC is {given!r}, which cannot be read ({error}); name a compiler in it"
            ) from None
    found = given or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if found is None:
        raise CannotBuild("there is no C compiler; install gcc or clang, or name one in CC")
    return [found]


def _find(place: Path, key: str) -> Path | None:
    """Find a library that was built before and is as it was then; delete what is not."""
    for path in sorted(place.glob(f"{PREFIX}{key}-*.so")):
        with suppress(OSError):
            if not trouble(path) and path.name == _name(key, path):
                return path
            path.unlink()
    return None


def _name(key: str, path: Path) -> str:
    """Name a library in the cache by what it was built from and what it holds."""
    return f"{PREFIX}{key}-{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}.so"


def include() -> tuple[str, ...]:
    """Return the compiler's options for the headers of the kernels."""
    return f"-I{SOURCES}", f"-I{HEADERS}"


def _compile(compiler: list[str], options: list[str], openmp: str | None, scratch: Path) -> Path:
    """Compile and link all sources in a folder."""
    objects, threads = [], [OPENMP] if openmp else []
    for source in sorted(SOURCES.rglob("*.c")):
        objects.append(str(scratch / f"{'-'.join(source.relative_to(SOURCES).parts)}.o"))
        _run([*compiler, *FLAGS, *include(), *options, *threads, "-c", str(source), "-o", objects[-1]])
    linked = scratch / "kernels.so"
    libraries = [openmp] if openmp else []
    _run([*compiler, *options, "-shared", "-o", str(linked), *objects, *libraries, "-lm"])
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


def _key(compiler: list[str], target: str, openmp: str | None) -> str:
    """Name what a build depends on."""
    parts = [*compiler, target, str(openmp), platform.machine(), " ".join(sorted(features())), *FLAGS]
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
