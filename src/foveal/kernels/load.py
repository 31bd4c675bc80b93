"""Loading the C kernels: a file that is cut or is something else is refused instead of crashing later."""

from __future__ import annotations

import ctypes
from pathlib import Path

SYMBOLS = (
    *(
        "foveal_add_rows",
        "foveal_choose_tiles",
        "foveal_classify",
        "foveal_compose",
        "foveal_convolve",
        "foveal_cut",
        "foveal_depthwise",
    ),
    *("foveal_enlarge", "foveal_gather", "foveal_halve", "foveal_index", "foveal_max_pool", "foveal_means"),
    *("foveal_outputs", "foveal_resize", "foveal_winograd"),
    *("foveal_reduced_change", "foveal_reduced_convolve", "foveal_reduced_depthwise"),
    *("foveal_reduced_enlarge", "foveal_reduced_halve", "foveal_reduced_max_pool", "foveal_reduced_means"),
    *("foveal_reduced_path", "foveal_program_free", "foveal_program_make", "foveal_program_release"),
    *("foveal_program_run", "foveal_program_size", "foveal_program_reached"),
    *("foveal_stream_bytes", "foveal_stream_copy", "foveal_stream_copy_in", "foveal_stream_copy_out"),
    *("foveal_stream_free", "foveal_stream_make", "foveal_stream_run"),
)
"""The functions that Python calls."""
ADVICE = "delete it, or name another library of this version in FOVEAL_KERNELS"


def load(path: Path) -> ctypes.CDLL:
    """Load a library of kernels.

    Args:
        path: File of the library.

    Raises:
        OSError: The file is absent, cut, no library, or lacks functions of this version.
    """
    if _is_cut(path):
        raise OSError(f"{path} was cut and is no longer a library; {ADVICE}")
    kernels = ctypes.CDLL(str(path))
    missing = [name for name in SYMBOLS if not hasattr(kernels, name)]
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise OSError(f"{path} lacks {len(missing)} of {len(SYMBOLS)} functions ({names}); {ADVICE}")
    return kernels


def _is_cut(path: Path) -> bool:
    """Whether a 64-bit ELF file ends before its table of sections, which linkers write last, does.

    The system maps such a file without complaint, and ends the process when it reads what is not there.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(b"\x7fELF\x02\x01"):
        return False
    sections, size, count = (int.from_bytes(head[a:b], "little") for a, b in ((40, 48), (58, 60), (60, 62)))
    return path.stat().st_size < sections + size * count
