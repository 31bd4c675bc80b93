"""An operation: one meaning, a reference, faster versions, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Implementation = Callable[..., Tensor]


class Op:
    """A named operation with several implementations of one meaning.

    The reference defines the meaning. A version is chosen by the device of the first argument; whoever
    names one gets that one or an error, never another.

    Args:
        reference: The readable implementation, for any device and precision, differentiable.
        versions: Faster ones by name; the name of a device makes a version that device's choice.
    """

    def __init__(self, reference: Implementation, **versions: Implementation) -> None:
        self.name = reference.__module__.rsplit(".", 1)[-1]
        self.__doc__ = reference.__doc__
        self.implementations: dict[str, Implementation] = {"reference": reference, **versions}

    def __call__(self, first: Tensor, *rest: Any, impl: str | None = None) -> Tensor:
        """Run the operation; `impl` forces an implementation.

        Raises:
            ValueError: There is no implementation of that name.
        """
        if impl is None:
            choice = self.implementations.get(first.device.type, self.implementations.get("cpu"))
            return (choice or self.implementations["reference"])(first, *rest)
        if impl not in self.implementations:
            names = ", ".join(self.implementations)
            raise ValueError(f"{self.name} has no implementation '{impl}'; available: {names}")
        return self.implementations[impl](first, *rest)
