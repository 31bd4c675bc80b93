"""Base class of adaptive methods: a module from images to predictions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from foveal.methods.config import Aim, MethodConfig, MethodTraining, Resources
from foveal.methods.prediction import Prediction, Trace
from foveal.program.images import BRIGHT, SAMPLED, warn_of_range
from foveal.storage.schema import MOST_TILE
from foveal.tiles import run_dense

if TYPE_CHECKING:
    from foveal.geometry.plan import Plan
    from foveal.tiles.memory import Memory


class AdaptiveSegmenter(nn.Module, ABC):
    """Turns images into predictions with adaptive computation.

    A final class per method; no method is overridden once written.

    Attributes:
        network: The ordinary network that the method runs.
        Config: Its settings.
        decides_from: What the decision looks at, in words.
        decides_for: The smallest thing that work is spent on or not: a tile, a position of a map, a point, an
            image.
        supports_risk: Whether a tolerated disagreement, found by `foveal adapt`, can choose what is spent.
        is_anytime: Whether complete predictions come one after the other (`stream`).
        supports_masks: Whether places can be left out (`masked`).
        uses_memory: Whether it reads what the last call left in `memory`.
        counts_interpolation: Whether shares of work are of all MACs; else of convolutions and products.
        needs: Kind of part that must have been trained with the network; None for methods that take any.
    """

    network: nn.Module
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    decides_from: ClassVar[str] = "nothing"
    decides_for: ClassVar[Literal["tile", "position", "point", "image"]] = "tile"
    supports_risk: ClassVar[bool] = False
    is_anytime: ClassVar[bool] = False
    supports_masks: ClassVar[bool] = False
    uses_memory: ClassVar[bool] = False
    counts_interpolation: ClassVar[bool] = False
    needs: ClassVar[type[nn.Module] | None] = None

    @classmethod
    @abstractmethod
    def from_config(cls, network: nn.Module, config: Any, resources: Resources | None = None) -> Self:
        """Make the method for a network from its config.

        Raises:
            ValueError: The config does not fit the network, or something that it needs is missing.
        """

    @abstractmethod
    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, 3, H, W] in 0..1, given what the last call left in `memory`."""

    @abstractmethod
    def decide(self, image: Tensor) -> Plan | None:
        """Return the plan for images [N, 3, H, W] without running it; None if whole images would run.

        Where a decision needs a coarse pass of the network, that pass runs; a method of several passes
        returns the plan of its first.
        """

    @abstractmethod
    def dense(self) -> nn.Module:
        """Return the network that the method equals when it spends everything."""

    @abstractmethod
    def least_work(self, size: tuple[int, int]) -> float:
        """Return the least share of the dense work that the method can spend on an image of `size` [px]."""

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment images [N, C, H, W] where cells are wanted [N, Gh, Gw], bool; compute nothing elsewhere.

        A tile is computed if any of its cells is wanted.

        Raises:
            ValueError: The method has no way to leave places out.
        """
        raise ValueError(
            f"{type(self).__name__} computes whole images and takes no mask; give coarse_to_fine or segblocks"
        )

    def labels(self, image: Tensor) -> Tensor:
        """Return the class per pixel [N, H, W], uint8, of images [N, 3, H, W], and nothing else."""
        return self(image).labels

    def dense_labels(self, image: Tensor) -> Tensor:
        """Return what the dense network says, class per pixel [N, H, W], uint8."""
        size = check_image(image, self.network)
        return Prediction(self.dense()(image), size, Trace()).labels

    def remaining_gain(self, image: Tensor, prediction: Prediction) -> Tensor:
        """Return the gain per pixel that was left unspent [N]; 0 for methods that do not estimate it."""
        return torch.zeros(len(image), dtype=torch.float64)


class TrainableSegmenter(AdaptiveSegmenter):
    """A method that can be trained.

    Attributes:
        Training: Keys of the section [method] of a recipe, a frozen pydantic model.
        deciding: What the names of parameters that learn to decide start with: recipes have a learning rate
            for them.
        undecayed: What the names of parameters without weight decay start with.
    """

    Training: ClassVar[type[MethodTraining]]
    deciding: ClassVar[tuple[str, ...]] = ("policy.",)
    undecayed: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def for_training(cls, network: nn.Module, training: Any, aim: Aim) -> Self:
        """Make the method for training, as a recipe says.

        Raises:
            ValueError: The recipe does not fit the network.
        """

    @abstractmethod
    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the terms to minimise for images [N, 3, H, W] and labels [N, H, W]."""


def mark_dense_modules(network: nn.Module, names: tuple[str, ...] | None = None) -> None:
    """Let submodules see the whole map; those that the network declares if none are named."""
    for name in getattr(network, "dense_modules", ()) if names is None else names:
        run_dense(network.get_submodule(name))


class WrappingMethod(AdaptiveSegmenter):
    """A method around another one: made from that, and from no config."""

    @classmethod
    def from_config(cls, network: nn.Module, config: Any, resources: Resources | None = None) -> Self:
        """Refuse.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"a {cls.__name__} is made from a method, not from a config")


def check_tile(network: nn.Module, tile: int) -> int:
    """Return the side of a tile, if tiles stay whole at every stride of the network.

    Raises:
        ValueError: They do not. A network that does not say its coarsest stride is not checked here.
    """
    stride = int(getattr(network, "coarsest_stride", 1))
    if type(tile) is not int or tile > MOST_TILE:
        raise ValueError(f"tile is {tile!r}; give a whole number of pixels up to {MOST_TILE}")
    if tile < 1 or tile % stride:
        nearest = max(1, round(tile / stride)) * stride
        raise ValueError(
            f"tile is {tile} px and the network has stride {stride}; give a multiple of {stride}, "
            f"such as {nearest}"
        )
    return tile


def refuse_tracing() -> None:
    """Refuse to become a graph.

    Raises:
        ValueError: PyTorch traces or exports what runs.
    """
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        raise ValueError(
            "a method decides image by image, which a traced graph cannot; export the network by itself, or "
            "foveal.export_program(network, FILE), of an adaptive model model.export(FILE), which runs the "
            "method without PyTorch"
        )


def check_image(image: Tensor, network: nn.Module | None = None) -> tuple[int, int]:
    """Return height and width of a batch of images [N, C, H, W].

    Args:
        image: The images.
        network: What they are for; its `in_channels` are C, 3 if it does not say.

    Raises:
        ValueError: As of `check_shape`, or it holds NaN or infinity.
    """
    size = check_shape(image, network)
    if not bool(image.detach().sum(dtype=torch.promote_types(image.dtype, torch.float32)).isfinite()):
        raise ValueError("images hold NaN or infinity; give finite numbers in 0..1")
    return size


def check_shape(image: Tensor, network: nn.Module | None = None) -> tuple[int, int]:
    """As `check_image`, for what looks for NaN and infinity itself, where it reads the images.

    Raises:
        ValueError: It is no tensor, has another shape or precision, is empty, holds numbers of 0..255, or it
            is being traced. Numbers beyond 0..1 are warned of once.
    """
    check_tensor(image)
    shape, channels = list(image.shape), getattr(network, "in_channels", 3)
    if image.ndim != 4 or image.shape[1] != channels or image.numel() == 0:
        kind = "RGB in 0..1" if channels == 3 else "in 0..1"
        raise ValueError(f"images are {shape}; give [N, {channels}, H, W], {kind}, nothing empty")
    if not image.is_floating_point():
        raise ValueError(
            f"images are {image.dtype}; give floating point numbers in 0..1 (divide bytes by 255)"
        )
    _check_precision(image, network)
    refuse_tracing()
    least, most = value_range(image)
    if BRIGHT < most < math.inf:
        raise ValueError(f"images hold numbers up to {most:.0f}; give numbers in 0..1 (divide 0..255 by 255)")
    if not getattr(getattr(network, "preprocess", None), "is_identity", False):
        warn_of_range(least, most)
    return image.shape[2], image.shape[3]


def check_tensor(image: object) -> None:
    """Refuse what is no ordinary tensor of torch.

    Raises:
        ValueError: It is something else, or sparse, nested or on the meta device.
    """
    if not isinstance(image, Tensor):
        raise ValueError(
            f"image is a {type(image).__name__}; give a tensor of torch [N, C, H, W], such as "
            "torch.from_numpy(array).permute(2, 0, 1)[None] / 255 of an array of bytes [H, W, C]"
        )
    kind = "nested" if image.is_nested else "on the meta device" if image.is_meta else str(image.layout)
    if kind != str(torch.strided):
        raise ValueError(f"image is {kind}; give an ordinary dense tensor [N, C, H, W] with its numbers")


def value_range(image: Tensor) -> tuple[float, float]:
    """Return the least and the largest of some of the numbers of images [N, C, H, W], from all parts."""
    down, across = (max(1, side // SAMPLED) for side in image.shape[2:])
    least, most = image.detach()[:, :, ::down, ::across].aminmax()
    return float(least), float(most)


def _check_precision(image: Tensor, network: nn.Module | None) -> None:
    """Refuse images of another precision than the weights, as PyTorch would in words of its own."""
    weights = (p.dtype for p in network.parameters() if p.is_floating_point()) if network is not None else ()
    wanted = next(iter(weights), None)
    if image.element_size() < 2 or (wanted is not None and image.dtype != wanted):
        wanted = wanted or torch.float32
        raise ValueError(f"images are {image.dtype}; give {wanted}, as the weights are: image.to({wanted})")
