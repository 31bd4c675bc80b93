"""Heads where a network may be left: small networks from a map inside it to logits.

Source: Kouris et al., "Multi-Exit Semantic Segmentation Networks", ECCV 2022 (channel reduction, extra
blocks, dilation, kind of head); the kinds are those of Long et al., CVPR 2015, and Chen et al., "Rethinking
Atrous Convolution", 2017, without its pooling of the whole image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from foveal.exits.stages import Stages
from foveal.storage.schema import Name

MOST_MAP_CHANNELS, MOST_WIDTH = 65536, 4096
"""More would take gigabytes before anything runs."""
RATES = (1, 2, 4)
"""Dilations of the branches of an aspp head, in its own dilation."""


@dataclass(frozen=True)
class ExitConfig:
    """Where a network may be left, and the head that is there.

    Attributes:
        place: Module of the network after which it may be left.
        channels: Channels of the map there; 0 for as many as there are.
        width: Channels inside the head.
        blocks: Residual blocks of two convolutions before the classifier.
        dilation: Of every 3x3 convolution.
        kind: fcn, one 3x3 convolution; or aspp, branches of three dilations side by side.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    place: Name
    channels: Annotated[int, Field(ge=0, le=MOST_MAP_CHANNELS)] = 0
    width: Annotated[int, Field(ge=1, le=MOST_WIDTH)] = 64
    blocks: Annotated[int, Field(ge=0, le=8)] = 0
    dilation: Annotated[int, Field(ge=1, le=16)] = 1
    kind: Literal["fcn", "aspp"] = "fcn"


class ExitHead(nn.Module):
    """A head from a map [N, C, h, w] to logits [N, K, h, w].

    Args:
        config: Its shape.
        classes: Logits K.
    """

    def __init__(self, config: ExitConfig, classes: int) -> None:
        super().__init__()
        width, rates = config.width, RATES if config.kind == "aspp" else (1,)
        self.branches = nn.ModuleList(_unit(config.channels, width, config.dilation * rate) for rate in rates)
        self.join = nn.Identity() if len(rates) == 1 else _unit(len(rates) * width, width, kernel=1)
        self.blocks = nn.Sequential(*(_Block(width, config.dilation) for _ in range(config.blocks)))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, h, w] to logits [N, K, h, w]."""
        found = [branch(x) for branch in self.branches]
        return self.classify(self.blocks(self.join(torch.cat(found, 1) if len(found) > 1 else found[0])))


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = _unit(width, width, dilation)
        self.second = nn.Sequential(*list(_unit(width, width, dilation))[:2])
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.first(x)) + x)


def _unit(incoming: int, outgoing: int, dilation: int = 1, kernel: int = 3) -> nn.Sequential:
    around = dilation * (kernel // 2)
    convolution = nn.Conv2d(incoming, outgoing, kernel, padding=around, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outgoing), nn.ReLU())


class Exits(nn.Module):
    """The heads of a network, first to last; they belong to its weights.

    Args:
        configs: Place and shape of every head.
        classes: Logits K.

    Raises:
        ValueError: There are none.
    """

    def __init__(self, configs: Sequence[ExitConfig], classes: int) -> None:
        super().__init__()
        if not configs:
            raise ValueError("there are no exits; give at least one place where the network may be left")
        self.configs, self.classes = tuple(configs), classes
        self.heads = nn.ModuleList(ExitHead(config, classes) for config in configs)

    @classmethod
    def of(cls, stages: Stages, like: ExitConfig | None = None, seed: int = 0) -> Exits:
        """Make fresh heads for all places of a network in stages.

        Args:
            stages: The network.
            like: Shape of every head; place and channels are those of the network. If absent, heads are no
                wider than the maps that they are given.
            seed: Of the weights.
        """
        configs = [
            replace(
                like or ExitConfig("", width=min(ExitConfig.width, place.channels)),
                place=place.name,
                channels=place.channels,
            )
            for place in stages.places
        ]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = cls(configs, stages.classes)
        return made.to(stages.like)

    def only(self, numbers: Sequence[int]) -> Exits:
        """Return some of the heads, by their numbers from 0; they stay the same modules."""
        with torch.device("meta"):
            made = Exits([self.configs[k] for k in numbers], self.classes)
        made.heads = nn.ModuleList(self.heads[k] for k in numbers)
        return made.train(self.training)

    @property
    def places(self) -> tuple[str, ...]:
        """Modules after which the network may be left."""
        return tuple(config.place for config in self.configs)

    def __len__(self) -> int:
        """Count the heads."""
        return len(self.heads)

    def __iter__(self) -> Iterator[Any]:
        """Give the heads, first to last."""
        return iter(self.heads)

    def check_fit(self, stages: Stages) -> None:
        """Refuse heads that are of another network.

        Raises:
            ValueError: They take maps of other channels, or give other classes.
        """
        for config, place in zip(self.configs, stages.places, strict=True):
            if config.channels != place.channels or self.classes != stages.classes:
                raise ValueError(
                    f"the exit after {place.name} is for {config.channels} channels and {self.classes} "
                    f"classes; the network has {place.channels} there, and {stages.classes} classes"
                )
