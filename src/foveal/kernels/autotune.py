"""The fastest of several ways to compute the same: measured once per machine and kind of case, kept on disk.

An `Autotuner` belongs to one operation. It knows cases by a description in words, which holds everything that
the speed depends on. Nothing is measured outside `tuning()`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import torch

from foveal.kernels.build import built
from foveal.storage.store import Store

_TUNING: ContextVar[bool] = ContextVar("tuning", default=False)
_ALL: list[Autotuner] = []
CHOICES = Store("autotune", version=1)
"""Records from case to name, one for every operation and build of the kernels."""
ROUNDS = 3
CACHE = 1 << 23
"""Numbers [4 B] that are read between two runs, so that caches are cold."""


class Autotuner:
    """Chooses the fastest way to compute one operation, and keeps what was measured.

    Args:
        name: Name of the operation; part of the record's key.
        candidates: Everything that may ever be chosen.
    """

    def __init__(self, name: str, candidates: Sequence[str]) -> None:
        self.name, self.candidates = name, tuple(candidates)
        self._found: dict[str, str] | None = None
        self._new: dict[str, str] = {}
        self._store = CHOICES
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
            self._all()[case] = self._new[case] = found
        return found

    @property
    def path(self) -> Path:
        """File of the measured choices."""
        return self._store.path(self._key)

    @contextmanager
    def kept_in(self, place: Path) -> Iterator[None]:
        """Keep the choices in another folder for a while, and know only what is in it."""
        before = self._store, self._found, self._new
        self._store, self._found, self._new = Store(CHOICES.namespace, CHOICES.version, place), None, {}
        try:
            yield
        finally:
            self._store, self._found, self._new = before

    def reload(self) -> None:
        """Forget what is not on disk."""
        self._found, self._new = None, {}

    def save(self) -> None:
        """Write what was measured since; if the folder cannot be written, it is measured again next time."""
        new, self._new = self._new, {}
        if new:
            with suppress(OSError):
                self._store.update(self._key, new)

    @property
    def _key(self) -> str:
        return f"{self.name}-{built()}"

    def _all(self) -> dict[str, str]:
        """Read the file once."""
        if self._found is None:
            found = self._store.read(self._key) or {}
            self._found = {case: name for case, name in found.items() if name in self.candidates}
        return self._found


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
        for autotuner in _ALL:
            autotuner.save()


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
