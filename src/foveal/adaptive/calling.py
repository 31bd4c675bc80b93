"""What a call of an adaptive model takes and returns, for type checkers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack, overload

from torch import Tensor, nn

from foveal.adaptive.result import AdaptiveResult

Images = Tensor | Sequence[Tensor]


class Limits(TypedDict, total=False):
    """What may be given with images, as of `AdaptiveModel.forward`; exactly one of the first four."""

    budget: float | None
    latency_ms: float | None
    risk: float | None
    threshold: float | None
    mask: Tensor | Sequence[Tensor] | None
    mask_share: float
    always_adapt: bool


class TypedCall(nn.Module):
    """A module whose call returns one result for a batch, and a list of them for a list of images."""

    if TYPE_CHECKING:  # what `forward` returns, by what it is given

        @overload
        def __call__(self, image: Tensor, **limits: Unpack[Limits]) -> AdaptiveResult: ...

        @overload
        def __call__(self, image: Sequence[Tensor], **limits: Unpack[Limits]) -> list[AdaptiveResult]: ...

        def __call__(self, image: Images, **limits: Unpack[Limits]) -> AdaptiveResult | list[AdaptiveResult]:
            """Segment images: see `forward`."""
