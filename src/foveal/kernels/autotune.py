"""The fastest of several ways to compute the same: measured once per machine and kind of case, kept on disk.

A `Choices` belongs to one operation. It knows cases by a description in words, which holds everything that
the speed depends on. Nothing is measured outside `tuning()`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

from foveal.kernels.build import built
from foveal.storage.atomic import write_atomically
from foveal.storage.cache import folder

_TUNING: ContextVar[bool] = ContextVar("tuning", default=False)
_ALL: list[Choices] = []
ROUNDS = 3
CACHE = 1 << 23
"""Numbers [4 B] that are read between two runs, so that caches are cold."""


class Choices:
    """What was measured of one operation.

    Args:
        name: Name of the operation; part of the file's name.
        candidates: Everything that may ever be chosen.
    """

    def __init__(self, name: str, candidates: Sequence[str]) -> None:
        self.name, self.candidates = name, tuple(candidates)
        self._found: dict[str, str] | None = None
        self._path: Path | None = None
        self._changed = False
        _ALL.append(self)

    def __len__(self) -> int:
        """Count the cases that were measured."""
        return len(self._all())

    def get(self, case: str) -> str | None:
        """Return what was fastest in a case; None if it was not measured."""
        return self._all().get(case)

    def measure(self, case: str, names: Sequence[str], run: Callable[[str], object]) -> str:
        """Return what is fastest among `names`, running all of them if the case was not measured before.

        Args:
            case: Description of everything that the speed depends on.
            names: Candidates that can compute the case.
            run: Computes the case by the candidate of a name.
        """
        found = self.get(case)
        if found is None or found not in names:
            found = fastest(names, run)
            self._all()[case] = found
            self._changed = True
        return found

    @property
    def path(self) -> Path:
        """File that the choices are kept in."""
        return self._path or folder() / f"{self.name}-{built()}.json"

    @contextmanager
    def kept_in(self, path: Path) -> Iterator[None]:
        """Keep the choices in another file for a while, and know only what is in it."""
        before = self._path, self._found, self._changed
        self._path, self._found, self._changed = path, None, False
        try:
            yield
        finally:
            self._path, self._found, self._changed = before

    def reload(self) -> None:
        """Forget what is not on disk."""
        self._found, self._changed = None, False

    def save(self) -> None:
        """Write what was measured since; if the folder cannot be written, it is measured again next time."""
        if not self._changed:
            return
        self._changed = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(self._all(), indent=1))
        except OSError:
            return

    def _all(self) -> dict[str, str]:
        """Read the file once."""
        if self._found is None:
            self._found = self._read()
        return self._found

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {key: name for key, name in found.items() if name in self.candidates}


def is_tuning() -> bool:
    """Whether cases that were not measured before shall be measured now."""
    return _TUNING.get()


@contextmanager
def tuning() -> Iterator[None]:
    """Measure every kind of case that runs inside and was not measured before; keep the choices."""
    token = _TUNING.set(True)
    try:
        yield
    finally:
        _TUNING.reset(token)
        for choices in _ALL:
            choices.save()


def fastest(names: Sequence[str], run: Callable[[str], object]) -> str:
    """Return the name that runs fastest, the first of equal ones.

    Caches are cold in every run: in a network, other layers run between two calls of one.
    """
    best = dict.fromkeys(names, math.inf)
    other = torch.ones(CACHE)
    for _ in range(ROUNDS):
        for name in names:
            other.sum()
            start = time.perf_counter()
            run(name)
            best[name] = min(best[name], time.perf_counter() - start)
    return min(names, key=lambda name: best[name])
