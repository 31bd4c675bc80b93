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
        fits: Says from the arguments whether the version `native`, in C, can take them; it is then chosen.
        versions: Faster ones by name; the name of a device makes a version that device's choice.
    """

    def __init__(
        self, reference: Implementation, fits: Callable[..., bool] | None = None, **versions: Implementation
    ) -> None:
        self.fits = fits
        self.name = reference.__module__.rsplit(".", 1)[-1]
        self.__doc__ = reference.__doc__
        self.implementations: dict[str, Implementation] = {"reference": reference, **versions}

    def __call__(self, first: Tensor, *rest: Any, impl: str | None = None) -> Tensor:
        """Run the operation; `impl` forces an implementation.

        Raises:
            ValueError: There is no implementation of that name, or it cannot take these arguments.
        """
        if impl is None and self.fits is not None and self.fits(first, *rest):
            impl = "native"
        if impl is None:
            choice = self.implementations.get(first.device.type, self.implementations.get("cpu"))
            return (choice or self.implementations["reference"])(first, *rest)
        if impl not in self.implementations:
            names = ", ".join(self.implementations)
            raise ValueError(f"{self.name} has no implementation '{impl}'; available: {names}")
        if impl == "native" and self.fits is not None and not self.fits(first, *rest):
            raise ValueError(
                f"the C version of {self.name} cannot take these arguments, or is not available here: it "
                "needs single precision on a CPU, no gradients, and a compiler; use impl='cpu'"
            )
        return self.implementations[impl](first, *rest)
