"""The cache folder, for kernels and measurements of this machine."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """Return the folder for what is built or measured once: `FOVEAL_CACHE`, else `~/.cache/foveal`."""
    return Path(os.environ.get("FOVEAL_CACHE") or Path.home() / ".cache" / "foveal")
