"""Where networks that run in lockstep wait for one another, and exchange what they computed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from foveal.compatibility.canvases import Canvases, Maps
from foveal.compatibility.logits import first_line


class NotJudged(RuntimeError):
    """A network that does not run in lockstep: it does other things at other levels."""


class Meeting:
    """Where the networks of all levels wait for one another."""

    def __init__(self, canvases: Canvases) -> None:
        self.canvases = canvases
        self.barrier = threading.Barrier(len(canvases.levels))
        self.turn = threading.Lock()
        self.brought: dict[int, tuple[object, list[Tensor]]] = {}
        self.taken: dict[int, Any] = {}
        self.problem: str | None = None

    def share(
        self,
        level: int,
        what: object,
        values: list[Tensor],
        change: Callable[[list[Maps]], Mapping[int, Any]],
    ) -> Any:
        """Bring tensors, wait for those of the other levels, and take what follows from all.

        Args:
            level: Whose they are.
            what: What was called; the same at every level.
            values: Tensors, as many at every level.
            change: From the tensors of all levels, by place, to what every level takes.

        Raises:
            NotJudged: The networks called different functions, or one has failed.
        """
        self.brought[level] = what, values
        if self._wait() == 0:
            kinds = {(id(name), len(tensors)) for name, tensors in self.brought.values()}
            if len(kinds) > 1:
                names = {getattr(name, "__name__", str(name)) for name, _ in self.brought.values()}
                self.fail(f"it calls different functions at different levels ({', '.join(sorted(names))})")
            else:
                places: list[Maps] = [
                    {k: v[1][n] for k, v in self.brought.items()} for n in range(len(values))
                ]
                try:
                    self.taken = dict(change(places))
                except Exception as error:
                    self.fail(first_line(error))
        self._wait()
        return self.taken.get(level)

    def fail(self, why: str) -> None:
        """Let all networks stop."""
        self.problem = self.problem or why
        self.barrier.abort()

    def _wait(self) -> int:
        self.turn.release()
        try:
            return self.barrier.wait()
        except threading.BrokenBarrierError:
            raise NotJudged(self.problem) from None
        finally:
            self.turn.acquire()
