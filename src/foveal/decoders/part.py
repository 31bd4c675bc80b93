"""A decoder that belongs to a network: where it reads, its coarse answer, and what refines that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from foveal.cost import count_macs
from foveal.decoders.maps import Maps
from foveal.decoders.nrd import PatchDecoder
from foveal.decoders.points import PointDecoder
from foveal.exits import ExitConfig, ExitHead, Stages
from foveal.exits.places import Place
from foveal.storage.schema import Name

FINE = 4
"""Stride of the answer of a decoder, where the network has a map there [px]."""
WIDTHS = {"nrd": 128, "points": 256}
"""Channels inside, by kind, if nobody says."""
MOST_MAP_CHANNELS, MOST_WIDTH, MOST_RATIO = 65536, 4096, 64


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder, and where it reads a network.

    Attributes:
        kind: nrd, a network per patch; or points, points that are predicted again.
        fine: Module after which the fine map is read.
        coarse: Module after which the coarse map is read.
        fine_channels: Channels of the fine map.
        coarse_channels: Channels of the coarse map.
        ratio: Fine samples on the side of a coarse one.
        width: Channels of the controller's hidden layer, or of the points' layers.
        coarse_width: Channels inside the head of the coarse answer.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    kind: Literal["nrd", "points"]
    fine: Name
    coarse: Name
    fine_channels: Annotated[int, Field(ge=1, le=MOST_MAP_CHANNELS)]
    coarse_channels: Annotated[int, Field(ge=1, le=MOST_MAP_CHANNELS)]
    ratio: Annotated[int, Field(ge=2, le=MOST_RATIO)]
    width: Annotated[int, Field(ge=1, le=MOST_WIDTH)]
    coarse_width: Annotated[int, Field(ge=1, le=MOST_WIDTH)] = 64


class Decoder(nn.Module):
    """A coarse answer, and what refines it; it belongs to a network's weights.

    Args:
        config: Its shape.
        classes: Logits K.

    Attributes:
        coarse: Head of the coarse answer, a 3x3 convolution and a classifier.
        head: What refines the answer.

    Raises:
        ValueError: Points are to be refined in steps of two, and the maps' strides are no such steps apart.
    """

    def __init__(self, config: DecoderConfig, classes: int) -> None:
        super().__init__()
        if config.kind == "points" and config.ratio & (config.ratio - 1):
            raise ValueError(
                f"the coarse map is {config.ratio} times coarser than the fine one; points double the answer "
                "step by step: give maps whose strides are powers of two apart, or kind nrd"
            )
        self.config, self.classes = config, classes
        self.coarse = ExitHead(
            ExitConfig(config.coarse, config.coarse_channels, config.coarse_width), classes
        )
        self.head: PatchDecoder | PointDecoder = (
            PatchDecoder(config.fine_channels, config.coarse_channels, classes, config.ratio, config.width)
            if config.kind == "nrd"
            else PointDecoder(config.fine_channels, classes, config.width)
        )

    @classmethod
    def of(
        cls,
        stages: Stages,
        kind: Literal["nrd", "points"] = "nrd",
        width: int = 0,
        coarse_width: int = 0,
        seed: int = 0,
    ) -> Decoder:
        """Make a fresh decoder for a network.

        Args:
            stages: The network, cut at the fine and at the coarse map.
            kind: Kind of the decoder.
            width: Channels inside; the usual ones if 0, no more than 4 times those of the maps.
            coarse_width: Channels inside the coarse head; 64 if 0, no more than the coarse map has.
            seed: Of the weights.

        Raises:
            ValueError: The strides of the maps do not fit one another.
        """
        fine, coarse = stages.places
        if coarse.stride % fine.stride or coarse.stride == fine.stride:
            raise ValueError(
                f"{fine.name} has stride {fine.stride} and {coarse.name} {coarse.stride}; give a coarse map "
                "whose stride is a multiple of the fine one's"
            )
        most = 4 * (coarse.channels if kind == "nrd" else fine.channels)
        config = DecoderConfig(
            kind,
            fine.name,
            coarse.name,
            fine.channels,
            coarse.channels,
            coarse.stride // fine.stride,
            width or min(WIDTHS[kind], most),
            coarse_width or min(DecoderConfig.coarse_width, coarse.channels),
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = cls(config, stages.classes)
        return made.to(stages.like)

    @property
    def places(self) -> tuple[str, str]:
        """Modules after which it reads the network, the finer one first."""
        return self.config.fine, self.config.coarse

    def maps(self, fine: Tensor, coarse: Tensor, stride: int, answer: Tensor | None = None) -> Maps:
        """Put the coarse answer beside the maps that it is refined from.

        Args:
            fine: Map after the first place [N, C, h, w].
            coarse: Map after the second one [N, C', hc, wc].
            stride: Of the fine map [px].
            answer: The coarse answer [N, K, hc, wc]; computed here if absent.
        """
        answer = self.coarse(coarse) if answer is None else answer
        return Maps(fine, coarse, answer, self.config.ratio, stride)

    def check_fit(self, stages: Stages) -> None:
        """Refuse a decoder that is of another network.

        Raises:
            ValueError: It reads maps of other channels or strides, or gives other classes.
        """
        fine, coarse = stages.places
        found = replace(
            self.config,
            fine_channels=fine.channels,
            coarse_channels=coarse.channels,
            ratio=max(1, coarse.stride // fine.stride),
        )
        if (found, stages.classes) != (self.config, self.classes):
            ours = self.config
            raise ValueError(
                f"the decoder is for maps of {ours.fine_channels} and {ours.coarse_channels} channels, "
                f"{ours.ratio} times apart, and {self.classes} classes; the network has {fine.channels} and "
                f"{coarse.channels}, {found.ratio} times apart, and {stages.classes} classes"
            )

    def macs(self) -> tuple[float, int]:
        """Count the coarse answer per coarse sample, and one place that is refined [MAC]."""
        config, like, side = self.config, next(self.parameters()), 4
        training = [module for module in self.modules() if module.training]
        self.eval()
        fine = like.new_zeros(1, config.fine_channels, *(side * config.ratio,) * 2)
        coarse = like.new_zeros(1, config.coarse_channels, side, side)
        answer = _macs(partial(self.coarse, coarse)) / side**2
        maps, first = self.maps(fine, coarse, 1), torch.zeros(1, 1, dtype=torch.int64, device=like.device)
        head = self.head
        place = (
            partial(head.at, maps, first)
            if isinstance(head, PatchDecoder)
            else partial(head.at, maps, 1, first)
        )
        found = answer, _macs(place)
        for module in training:
            module.training = True
        return found


def usual_places(network: nn.Module) -> tuple[str, str]:
    """Choose where a decoder reads a network: the last map of stride 4, or finer, and the deepest map of all.

    Raises:
        ValueError: The network cannot be traced, or its maps all have one stride.
    """
    places = Stages.places_of(network)
    fine = _finest(places)
    if fine is None:
        raise ValueError(
            f"{type(network).__name__} has no two maps of different strides that all of it goes through; "
            "a decoder needs a fine and a coarse one"
        )
    return fine.name, places[-1].name


def _finest(places: Sequence[Place]) -> Place | None:
    """Return the last place of the largest stride up to `FINE` and below the deepest's; else the finest."""
    able = [place for place in places if place.stride < places[-1].stride]
    if not able:
        return None
    wanted = max((p.stride for p in able if p.stride <= FINE), default=min(p.stride for p in able))
    return [place for place in able if place.stride == wanted][-1]


def _macs(run: Callable[[], Any]) -> int:
    macs = count_macs(run)
    return macs.convolution + macs.product
