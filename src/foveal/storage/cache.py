"""The cache folder, for kernels and measurements of this machine.

What lies in it is loaded and run, so it belongs to the user and nobody else may write there. A folder that is
not so is left alone; a private one under the temporary folder serves instead, and a warning says so.
"""

from __future__ import annotations

import os
import stat
import tempfile
from functools import cache
from pathlib import Path

from foveal.storage.said import warn_once


def home_folder() -> Path | None:
    """Return `~/.cache/foveal`; None for a user without a home, such as a number alone in a container."""
    try:
        return Path.home() / ".cache" / "foveal"
    except RuntimeError:
        return None


def folder() -> Path:
    """Return the folder for what is built or measured once: `FOVEAL_CACHE`, else `~/.cache/foveal`.

    It is created, for this user alone, where it is absent. If there is none that is this user's own, a folder
    under the temporary folder is returned, and one warning says why and what to do; a path that cannot exist
    if there is no temporary folder either.
    """
    given = os.environ.get("FOVEAL_CACHE")
    wanted = Path(given) if given else home_folder()
    wrong = "there is no home folder" if wanted is None else _unusable(wanted)
    if wanted is not None and not wrong:
        return wanted
    private = _private()
    warn_once(
        wrong,
        f"the cache is kept in {private}: {wrong}; name a folder in FOVEAL_CACHE that belongs to you and "
        "that nobody else can write",
    )
    return private


def trouble(path: Path, *, follow: bool = False, root: bool = False) -> str:
    """Say why a file or folder of the cache is not to be trusted; an empty string if it is.

    Args:
        path: File or folder that is there.
        follow: Whether to judge what a symbolic link points to instead of refusing it.
        root: Whether it may belong to the administrator too.

    Raises:
        OSError: It is not there, or cannot be looked at.
    """
    if not hasattr(os, "geteuid"):  # such a system has rights of another kind, and homes of their own
        return ""
    found = path.stat() if follow else path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a symbolic link"
    if found.st_uid not in (os.geteuid(), *([0] if root else [])):
        return f"{path} belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"other users can write {path} (chmod go-w forbids it)"
    return ""


def trouble_above(path: Path) -> str:
    """Say which folder above a path lets anybody put something else in its place; empty if none does.

    A folder that everybody may write does, unless only owners may move what is in it (the sticky bit, as in
    `/tmp`) and that belongs to the user or to the administrator. Who owns a folder above, or is in a group
    that may write it, is trusted.

    Args:
        path: File or folder that is there; both its name and what it resolves to are looked at.

    Raises:
        OSError: Something on the way cannot be looked at.
    """
    if not hasattr(os, "geteuid"):
        return ""
    for start in dict.fromkeys((path.absolute(), path.resolve())):
        for inner, outer in zip((start, *start.parents), start.parents, strict=False):
            mode = outer.stat().st_mode
            if not mode & stat.S_IWOTH:
                continue
            if not mode & stat.S_ISVTX:
                return f"everybody can write {outer}, which holds {path} (chmod o-w forbids it)"
            if inner.lstat().st_uid not in (os.geteuid(), 0):
                return f"{inner} belongs to another user, in a folder that everybody can write"
    return ""


def _unusable(path: Path, *, follow: bool = True) -> str:
    """Create a folder, for this user alone, and say why it cannot be used; an empty string if it can."""
    try:
        for missing in reversed([p for p in (path, *path.parents) if not p.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        if not path.is_dir():
            return f"{path} is no folder"
        return trouble(path, follow=follow) or (trouble_above(path) if follow else "")
    except OSError as error:
        return f"{path} cannot be used ({error.strerror})"


def _private() -> Path:
    """Return a folder of this user's own under the temporary folder; always the same one, unless taken."""
    try:
        name = f"foveal-{os.geteuid()}" if hasattr(os, "geteuid") else "foveal"
        path = Path(tempfile.gettempdir()) / name
        return _new(path.parent) if _unusable(path, follow=False) else path
    except OSError:
        return Path(os.devnull) / "foveal"


@cache
def _new(parent: Path) -> Path:
    """Create a folder for this process, where somebody else has taken the usual name."""
    return Path(tempfile.mkdtemp(prefix="foveal-", dir=parent))
