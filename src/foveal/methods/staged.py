"""What methods that may leave a network before its end have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from foveal.cost import count_macs
from foveal.exits import ExitConfig, Exits, Stages
from foveal.fusion.graph import fuse_part
from foveal.methods.base import TrainableSegmenter, check_image, mark_dense_modules
from foveal.methods.compiled_stages import CompiledStages
from foveal.methods.config import Aim, MethodTraining, Resources
from foveal.methods.prediction import Prediction, last
from foveal.storage.schema import Name

EXITS = "Numbers of the exits that are used, such as 1,3; all that were trained if absent."
"""Description of the setting."""
UNTRAINED = 0
"""Seed of heads that nobody has trained."""
ROUNDING = 1e-9
"""Shares of work that differ by less are equal."""


class StagedTraining(MethodTraining):
    """Section [method] of a recipe for networks with exits."""

    places: Annotated[tuple[Name, ...], Field(max_length=64, strict=False)] = ()
    """Modules after which the network may be left, first to last; the usual ones if absent."""
    width: Annotated[int, Field(ge=1, le=4096)] = 64
    """Channels of every head."""
    blocks: Annotated[int, Field(ge=0, le=8)] = 0
    """Residual blocks of every head."""
    dilation: Annotated[int, Field(ge=1, le=16)] = 1
    """Dilation of the convolutions of every head."""
    kind: Literal["fcn", "aspp"] = "fcn"
    """Kind of every head."""
    frozen: bool = False
    """Whether the network stays as it is, and only the heads learn."""

    @property
    def freezes_network(self) -> bool:
        """Whether only the heads learn."""
        return self.frozen

    @property
    def head(self) -> ExitConfig:
        """Shape of every head."""
        return ExitConfig("", 0, self.width, self.blocks, self.dilation, self.kind)


class StagedSegmenter(TrainableSegmenter):
    """Runs an ordinary network stage by stage, and may leave it at an exit.

    Args:
        network: Module from images [N, C, H, W] to logits [N, K, h, w].
        exits: Heads where it may be left; fresh ones at the usual places if absent.
        numbers: Numbers of those that are used, from 1, such as "1,3"; all if empty.
        dense_modules: Names of the submodules that must see the whole map; the network's own if absent.

    Attributes:
        stages: The network in stages.
        exits: The heads, which belong to its weights.
        shares: Share of the dense network's convolutions that every stage takes, without heads.
        head_shares: Share that the head at the end of every stage but the last takes.
        aim: What training minimises.

    Raises:
        ValueError: The network cannot be cut into stages, or the heads are of another one.
    """

    is_anytime = True
    needs = Exits

    def __init__(
        self,
        network: nn.Module,
        exits: Exits | None = None,
        numbers: str = "",
        dense_modules: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        mark_dense_modules(network, dense_modules)
        self.network = network
        self.exits = Exits.of(Stages(network), seed=UNTRAINED) if exits is None else exits
        if numbers:
            self.exits = self.exits.only(numbered(numbers, len(self.exits)))
        self.stages = Stages(network, self.exits.places)
        self.exits.check_fit(self.stages)
        self._joined = self._join_heads()
        self.shares, self.head_shares = self.stages.shares, self._head_shares()
        self.compiled: CompiledStages | None = None
        self.aim = Aim()

    @classmethod
    def from_config(cls, network: nn.Module, config: Any, resources: Resources | None = None) -> Self:
        """Take the heads that were trained with the network, if there are any."""
        return cls(network, config, None if resources is None else resources.part(Exits))  # type: ignore[arg-type]

    @classmethod
    def exits_for(cls, network: nn.Module, training: StagedTraining, aim: Aim) -> Exits:
        """Make fresh heads as a recipe says."""
        mark_dense_modules(network)
        network.requires_grad_(not training.frozen)
        return Exits.of(Stages(network, training.places or None), training.head, aim.seed)

    def forward(self, image: Tensor, memory: Any = None) -> Prediction:
        """Segment images [N, C, H, W] in 0..1; a memory is not used, every image is seen anew."""
        return last(self.stream(image))

    @abstractmethod
    def stream(self, image: Tensor) -> Iterator[Prediction]:
        """Yield a complete prediction at every exit that is reached; the last is that of `forward`."""

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    @property
    def compiled_from(self) -> tuple[object, ...]:
        """Places and heads; a head is the same however many methods have it."""
        return (*self.exits.places, *(id(head) for head in self.exits.heads))

    def compile(self) -> None:
        """Let every stage run as a part of a program; layers must be joined.

        Raises:
            NotCompiled: An operation has no step, or a stage leaves something else than maps of the image.
        """
        self.compiled = CompiledStages(self.stages, list(self.heads))  # type: ignore[arg-type]

    def started(self, image: Any) -> dict[str, Any]:
        """Return what the first stage is given: images [N, C, H, W], or their tiles."""
        return (self.compiled or self.stages).start(image)

    def after(self, stage: int, values: dict[str, Any]) -> dict[str, Any]:
        """Run a stage on what the one before it has left."""
        return (self.compiled or self.stages).run(stage, values)

    def answer_at(self, stage: int, values: dict[str, Any]) -> Any:
        """Return the logits at the end of a stage that has run, at their own stride."""
        if self.compiled is not None:
            return self.compiled.answer(stage, values)
        found = self.stages.at(stage, values)
        return self.heads[stage](found) if stage < len(self.heads) else found

    def to_the_end(self, image: Any) -> Any:
        """Return the logits of the network for images [N, C, H, W], or their tiles, without any exit."""
        if self.compiled is None:
            return self.network(image)
        values, end = self.started(image), len(self.heads)
        for stage in range(end + 1):
            values = self.after(stage, values)
        return self.answer_at(end, values)

    def reads(self, stage: int) -> set[str]:
        """Return the names of what a stage reads of what earlier ones have left."""
        return (self.compiled or self.stages).reads(stage)

    def stride_at(self, stage: int) -> int:
        """Return the pixels of the image per sample of the logits at the end of a stage."""
        return self.stages.places[stage].stride if stage < len(self.heads) else self.stages.stride

    def rest_after(self, stage: int) -> float:
        """Return the share of the dense work that follows a stage and its head, later heads included."""
        return sum(self.shares[stage + 1 :]) + sum(self.head_shares[stage + 1 :])

    def enlarged(self, logits: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
        """Bring logits of an exit to the finest stride of all, so that answers can be put together.

        Args:
            logits: [N, K, h, w].
            stride: Pixels of the image per sample.
            size: Height and width of the images [px].
        """
        factor = stride // self.finest
        if factor > 1:
            logits = F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
        return logits[:, :, : -(-size[0] // self.finest), : -(-size[1] // self.finest)]

    @property
    def finest(self) -> int:
        """Pixels per sample of the answer, the finest of all exits and of the network itself."""
        return min(self.stages.stride, *(place.stride for place in self.stages.places))

    def exit_logits(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the logits of all exits, at their own strides, and those of the network, for training."""
        values, found = self.stages.start(image), []
        for stage, head in enumerate(self.heads):
            values = self.stages.run(stage, values)
            found.append(head(self.stages.at(stage, values)))
        last_stage = len(self.heads)
        return found, self.stages.at(last_stage, self.stages.run(last_stage, values))

    def _checked(self, image: Tensor) -> tuple[int, int]:
        return check_image(image, self.network)

    @property
    def heads(self) -> nn.ModuleList:
        """The heads as they run, with their layers joined where those of the network are."""
        return self.exits.heads if self._joined is None else self._joined

    def _join_heads(self) -> nn.ModuleList | None:
        if not self.stages.is_fused:
            return None
        self.exits.eval()
        return nn.ModuleList(fuse_part(head, x) for head, x in zip(self.exits, self._maps(), strict=True))

    def _maps(self) -> list[Tensor]:
        """Make a map for every head, as large as that of an image of 64 x 64 px."""
        like = next(self.exits.parameters())
        sides = [max(1, 64 // place.stride) for place in self.stages.places]
        return [
            torch.rand(1, p.channels, n, n, generator=torch.Generator().manual_seed(0)).to(like)
            for p, n in zip(self.stages.places, sides, strict=True)
        ]

    def _head_shares(self) -> tuple[float, ...]:
        training, found = [m for m in self.heads.modules() if m.training], []
        self.heads.eval()
        for place, head, map_ in zip(self.stages.places, self.heads, self._maps(), strict=True):
            macs = count_macs(partial(head, map_))
            pixels = map_.shape[2] * map_.shape[3] * place.stride**2
            found.append((macs.convolution + macs.product) / pixels / self.stages.macs_per_pixel)
        for module in training:
            module.training = True
        return tuple(found)


def numbered(text: str, count: int) -> list[int]:
    """Read numbers of exits, counted from 1; return them counted from 0, in order.

    Raises:
        ValueError: They are no numbers of exits that there are.
    """
    given = [part.strip() for part in text.split(",")]
    numbers = sorted({int(part) - 1 for part in given if part.isdecimal()})
    if len(numbers) < len(given) or numbers[0] < 0 or numbers[-1] >= count:
        raise ValueError(
            f"exits is {text}; give numbers of exits from 1 to {count}, each once, such as 1,{count}"
        )
    return numbers
