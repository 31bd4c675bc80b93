"""An operation: one specification, and a table of backends that compute it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from foveal.kernels.abi import requirements


class Backend(NamedTuple):
    """One way to compute an operation.

    Attributes:
        name: "native", "torch", "reference", ...
        supports: Whether it can compute a case, given the arguments of the operation.
        run: Computes it.
        needs: Says what it needs, and what of that is missing here, for the error of whoever forces it.
    """

    name: str
    supports: Callable[..., bool]
    run: Callable[..., Tensor]
    needs: Callable[[], str] = str


def always(*given: Any) -> bool:
    """Support every case."""
    return True


class Op:
    """An operation with several equivalent backends; the first in the table that supports a case wins.

    Args:
        name: Its name.
        check: Raises ValueError for arguments that do not belong together, whichever backend runs.
        backends: The table, best first; the last one, the reference, supports every case.
    """

    def __init__(self, name: str, check: Callable[..., None], backends: Sequence[Backend]) -> None:
        self.name = name
        self.check = check
        self.backends = tuple(backends)
        self.__doc__ = self.backends[-1].run.__doc__

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the backends, best first."""
        return tuple(row.name for row in self.backends)

    def supports(self, backend: str, *given: Any) -> bool:
        """Whether a backend can compute a case.

        Raises:
            ValueError: There is no backend of that name.
        """
        return self._row(backend).supports(*given)

    def __call__(self, *given: Any, backend: str | None = None) -> Tensor:
        """Compute the operation.

        Args:
            given: Arguments, as of the reference.
            backend: Name of the backend to use; the first that supports the case if absent.

        Raises:
            ValueError: There is no backend of that name, it does not support this case, or the arguments do
                not belong together.
        """
        row = self._first(given) if backend is None else self._row(backend)
        if backend is not None and not row.supports(*given):
            others = ", ".join(name for name in self.names if name != backend)
            raise ValueError(
                f"the backend '{backend}' of {self.name} does not support this case{row.needs()}; use "
                f"another of {others}"
            )
        self.check(*given)
        return row.run(*given)

    def _first(self, given: tuple[Any, ...]) -> Backend:
        for row in self.backends[:-1]:
            if row.supports(*given):
                return row
        return self.backends[-1]

    def _row(self, name: str) -> Backend:
        for row in self.backends:
            if row.name == name:
                return row
        raise ValueError(f"{self.name} has no backend '{name}'; available: {', '.join(self.names)}")


def table(
    native: Callable[..., Tensor],
    supports: Callable[..., bool],
    torch: Callable[..., Tensor],
    reference: Callable[..., Tensor],
) -> tuple[Backend, ...]:
    """Make the usual table: C where it can be used, PyTorch elsewhere, the reference if asked for."""
    return (
        Backend("native", supports, native, requirements),
        Backend("torch", always, torch),
        Backend("reference", always, reference),
    )
