"""What is known about networks of one library: what every adapter says, and what it may leave out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class Images:
    """Images that a network was trained on.

    Attributes:
        mean: Mean per channel after scaling.
        std: Deviation per channel after scaling.
        scale: 1 if values are in 0..1, 255 if they are in 0..255.
        channel_order: "rgb", or "bgr".
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1.0
    channel_order: Literal["rgb", "bgr"] = "rgb"


@dataclass(frozen=True)
class Maker:
    """How to make a network again, with random weights.

    Attributes:
        function: "module:function", or a class.
        arguments: Keyword arguments, as JSON has them.
    """

    function: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Recognised:
    """What a network of a library expects.

    Attributes:
        find_images: Tells what it was trained on; None if it does not say.
        maker: How to make it again; None if it does not say.
        multiple: Sides of its images are padded to a multiple of it [px]; found by trying if None.
        settings: Attributes of it that are set, by name, so that it runs on tiles.
        refusal: Why it is no network from images to logits, and what to do; empty if it is one.
    """

    find_images: Callable[[], Images] | None = None
    maker: Maker | None = None
    multiple: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""


@dataclass(frozen=True)
class Pretrained:
    """A pretrained encoder.

    Attributes:
        state: Its weights by name.
        images: What it was trained on.
        same_padding: Whether it pads as TensorFlow does.
    """

    state: dict[str, Tensor]
    images: Images
    same_padding: bool


class Adapter:
    """What a library says about its networks. One file a library; nothing else names it.

    Attributes:
        library: Name of its package.
        preprocessing: What of it may be given as preprocessing, in words; empty if nothing.
        prefix: What names of its pretrained encoders begin with; empty if it has none.
    """

    library = ""
    preprocessing = ""
    prefix = ""

    def recognise(self, network: nn.Module) -> Recognised | None:
        """Say what a network expects; None if it is none of the library's."""
        raise NotImplementedError

    def read(self, given: Any) -> Images | None:
        """Read what `preprocessing` names; None if it is something else."""
        return None

    def may_call(self, function: str, maker: Any) -> bool:
        """Whether a function that a file names may be called without asking: classes of networks may."""
        return function.partition(":")[0].split(".")[0] == self.library and is_network(maker)

    def make(self, maker: Any, arguments: Mapping[str, Any]) -> Any:
        """Make a network again."""
        return maker(**arguments)

    def remedy(self, error: BaseException) -> str:
        """Say what to do about an error while networks are imported; empty if that is not known."""
        return ""

    def mend(self, error: BaseException) -> bool:
        """Do what lets networks be imported after an error; whether there was something to do."""
        return False

    def pretrained(self, name: str) -> Pretrained:
        """Make a pretrained encoder of a name without the prefix.

        Raises:
            ValueError: There is none, or the library is not there.
        """
        raise NotImplementedError


def is_network(maker: Any) -> bool:
    """Whether something is a class of modules."""
    return isinstance(maker, type) and issubclass(maker, nn.Module)


def is_of(network: nn.Module, library: str) -> bool:
    """Whether the class of a network is of a library."""
    return type(network).__module__.split(".")[0] == library
