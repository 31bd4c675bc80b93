"""Files that once showed a defect, or are like one that did: `corpus/KIND/NAME`, read by every test run.

A changed file that fails is written to the folder that `FUZZ_KEEP` names, as `KIND/DIGEST`; `make fuzz` names
the one of the repository, so that it can be committed with what mends it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
MOST_BYTES = 1 << 16
"""Of a file that is kept in the repository."""


def folder_name(kind: str) -> str:
    """Return the name of a kind as that of a folder."""
    return "-".join(re.findall(r"\w+", kind)).lower()


def kept(kind: str) -> list[Path]:
    """List the files of a kind."""
    return sorted((FOLDER / folder_name(kind)).glob("*"))


def keep(folder: Path, kind: str, data: bytes) -> Path:
    """Write a file that fails; return its place."""
    path = folder / folder_name(kind) / hashlib.sha256(data).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
