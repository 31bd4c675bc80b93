"""Dynamic decoder: an encoder's coarse answer everywhere, a fine one where that is unsure.

Adapts   where the decoder runs: patches (NRD), or points (PointRend).
Decides  the uncertainty of the coarse answer; of points, of the answer after every doubling.
Knob     budget, the share of the dense network's work; encoder and coarse answer are part of it.
Source   Zhang et al., "Dynamic Neural Representational Decoders for High-Resolution Semantic Segmentation",
         NeurIPS 2021; Kirillov et al., "PointRend: Image Segmentation as Rendering", CVPR 2020.
Differs  beside any network, whose own decoder stays: its maps are read where all of it goes through. NRD runs
         everywhere in the paper; here controller, guidance and the patches' networks run for the patches that
         the budget pays for, others keep the coarse answer. Its patch is as large as the maps are apart. Of
         points the budget says how many, and a step that could predict all leaves them to the later ones.
         The dense network is the ordinary one with its own decoder: at budget 1 that runs, and shares
         of work are of it. A budget below 1 that pays for all places gives `everywhere`, exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from foveal.decoders import Decoder, Maps, PointDecoder, usual_places
from foveal.decoders.points import sampled, training_points
from foveal.exits import Stages
from foveal.fusion.graph import fuse_part
from foveal.geometry.plan import check_budget
from foveal.methods.base import TrainableSegmenter, check_image, mark_dense_modules
from foveal.methods.compiled_stages import CompiledStages
from foveal.methods.config import Aim, MethodConfig, MethodTraining, Resources, setting
from foveal.methods.prediction import Prediction, Step, Trace, check_logits
from foveal.objectives.segmentation import cross_entropy
from foveal.policies import POLICIES, View
from foveal.policies.budgeted import per_cell
from foveal.storage.names import find
from foveal.storage.schema import Name

if TYPE_CHECKING:
    from foveal.tiles.memory import Memory

SCORES = {name: entry.score for name, entry in POLICIES.items() if entry.score and entry.budget is None}
UNTRAINED = 0
"""Seed of a decoder that nobody has trained."""
ROUNDING = 1e-9
"""Shares of work that differ by less are equal."""


@dataclass(frozen=True)
class DynamicDecoderConfig(MethodConfig):
    """Settings of the dynamic decoder."""

    policy: str = setting("logit_margin", "Score of the coarse answer's uncertainty; see `foveal policies`.")
    doublings: int = setting(2, "Last doublings of the answer after which points are predicted anew.", 1, 8)

    def __post_init__(self) -> None:
        super().__post_init__()
        find(self.policy, SCORES, "policy with a score")

    @property
    def time_key(self) -> tuple[object, ...]:
        """In how many steps points are predicted."""
        return (self.doublings,)


class DynamicDecoderTraining(MethodTraining):
    """Section [method] of a recipe for a decoder beside a network."""

    kind: Literal["nrd", "points"] = "nrd"
    """nrd, a network for every patch; or points, that are predicted anew."""
    fine: Name = ""
    """Module after which the fine map is read; the last one of stride 4 if absent."""
    coarse: Name = ""
    """Module after which the coarse map is read, also one in the network's decoder; the deepest if absent."""
    width: Annotated[int, Field(ge=0, le=4096)] = 0
    """Channels of the controller's hidden layer (128 if absent), or of the points' layers (256)."""
    coarse_width: Annotated[int, Field(ge=0, le=4096)] = 0
    """Channels inside the head of the coarse answer; 64 if absent."""
    auxiliary: Annotated[float, Field(ge=0, le=10)] = 0.4
    """Weight of the coarse answer's loss."""
    points: Annotated[int, Field(ge=1, le=1 << 20)] = 2048
    """Points of an image that are learned from in a step."""
    oversample: Annotated[float, Field(ge=1, le=100)] = 3.0
    """Candidates per point."""
    importance: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Share of the points that are the most uncertain candidates; others are drawn evenly."""
    frozen: bool = False
    """Whether the network stays as it is, and only the decoder learns."""

    @property
    def freezes_network(self) -> bool:
        """Whether only the decoder learns."""
        return self.frozen


class DynamicDecoder(TrainableSegmenter):
    """Runs the encoder of an ordinary network, and a decoder of its own where its coarse answer is unsure.

    Args:
        network: Module from images [N, C, H, W] to logits [N, K, h, w].
        config: Budget, and what uncertain is.
        decoder: The decoder that was trained with the network; a fresh one if absent.
        dense_modules: Names of the submodules that must see the whole map; the network's own if absent.

    Attributes:
        stages: The network up to the fine map, up to the coarse one, and its own decoder.
        decoder: What answers in the place of that one; it belongs to the network's weights.
        least: Share of the dense work of the network up to the coarse map, and of the coarse answer.
        place_macs: What one place that is refined takes [MAC].
        aim: What training minimises.

    Raises:
        ValueError: The network has no such maps, or the decoder is of another one.
    """

    Config = DynamicDecoderConfig
    Training = DynamicDecoderTraining
    decides_from = "the coarse answer at the end of the network's encoder"
    decides_for = "point"
    is_anytime = True
    needs = Decoder

    def __init__(
        self,
        network: nn.Module,
        config: DynamicDecoderConfig,
        decoder: Decoder | None = None,
        dense_modules: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        mark_dense_modules(network, dense_modules)
        self.network, self.config, self.budget = network, config, check_budget(config.budget)
        places = usual_places(network) if decoder is None else decoder.places
        self.stages = Stages(network, places, anywhere=True)
        self.decoder = Decoder.of(self.stages, seed=UNTRAINED) if decoder is None else decoder
        self.decoder.check_fit(self.stages)
        answer, self.place_macs = self.decoder.macs()
        answer /= self.stages.places[1].stride ** 2
        self.least = sum(self.stages.shares[:2]) + answer / self.stages.macs_per_pixel
        self.aim, self.training_part = Aim(), DynamicDecoderTraining()
        self.compiled: CompiledStages | None = None

    @classmethod
    def from_config(
        cls, network: nn.Module, config: DynamicDecoderConfig, resources: Resources | None = None
    ) -> Self:
        """Take the decoder that was trained with the network, if there is one."""
        return cls(network, config, None if resources is None else resources.part(Decoder))

    @classmethod
    def for_training(cls, network: nn.Module, training: DynamicDecoderTraining, aim: Aim) -> Self:
        """Train network and decoder, or the decoder beside the network as it is."""
        mark_dense_modules(network)
        network.requires_grad_(not training.frozen)
        fine, coarse = usual_places(network)
        stages = Stages(network, (training.fine or fine, training.coarse or coarse), anywhere=True)
        decoder = Decoder.of(stages, training.kind, training.width, training.coarse_width, aim.seed)
        method = cls(network, DynamicDecoderConfig(), decoder)
        method.aim, method.training_part = aim, training
        return method

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment images [N, C, H, W] in 0..1; a memory is not used, every image is seen anew."""
        return deque(self.stream(image), maxlen=1)[0]

    def stream(self, image: Tensor) -> Iterator[Prediction]:
        """Yield the coarse answer, and then the one that the budget pays for, which is that of `forward`.

        Raises:
            ValueError: The budget does not pay for the coarse answer.
        """
        size = check_image(image, self.network)
        if self.budget >= 1:
            logits = self._whole(image)
            check_logits(logits)
            yield Prediction(logits, size, Trace((_step("network", 1.0, image),)))
            return
        if self.least > self.budget + ROUNDING:
            raise ValueError(
                f"budget is {self.budget:g} and the encoder with its coarse answer takes {self.least:.3g} of "
                "the dense work; raise the budget, or train a decoder that reads an earlier map"
            )
        maps = self.maps(image)
        first = _step("encoder", self.least, image)
        yield Prediction(maps.enlarged(1), size, Trace((first,)))
        head, count = self.decoder.head, self._places(size)
        for logits, spent in head.stream(maps, count, partial(self._score, image), self.config.doublings):
            check_logits(logits)
            work = spent * self.place_macs / (self.stages.macs_per_pixel * prod(size))
            yield Prediction(logits, size, Trace((first, _step(head.place, work, image))))

    @property
    def compiled_from(self) -> tuple[object, ...]:
        """The decoder, for its places and its coarse answer."""
        return (id(self.decoder),)

    def compile(self) -> None:
        """Let the network and its coarse answer run as parts of a program; layers must be joined.

        Raises:
            NotCompiled: An operation has no step, or a stage leaves something else than maps of the image.
        """
        channels, like = self.decoder.config.coarse_channels, next(self.decoder.parameters())
        generator = torch.Generator().manual_seed(0)
        coarse = fuse_part(self.decoder.coarse, torch.rand(1, channels, 4, 4, generator=generator).to(like))
        self.compiled = CompiledStages(self.stages, [None, coarse])

    def everywhere(self, image: Tensor) -> Tensor:
        """Return the decoder's answer [N, K, h, w] for images [N, C, H, W], every place refined."""
        check_image(image, self.network)
        return self.decoder.head.everywhere(self.maps(image))

    def most_work(self, size: tuple[int, int]) -> float:
        """Return the share of the dense work that refining every place of an image of `size` [px] takes."""
        stride = self.stages.places[0].stride
        places = self.decoder.head.count((-(-size[0] // stride), -(-size[1] // stride)))
        return self.least + places * self.place_macs / (self.stages.macs_per_pixel * prod(size))

    def decide(self, image: Tensor) -> None:
        """Return None: places are no tiles."""
        check_image(image, self.network)

    def dense(self) -> nn.Module:
        """Return the network, with its own decoder."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the work of the coarse answer; of everything if the budget is 1."""
        return 1.0 if self.budget >= 1 else self.least

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy of the coarse answer, of the decoder, and of the network if that learns.

        Source: the auxiliary head of NRD, section 4; the points of PointRend, section 3.2.
        """
        part, weight, hardest = self.training_part, self.aim.class_weight, self.aim.hardest
        values = self.stages.run(0, self.stages.start(image))
        fine = self.stages.at(0, values)
        values = self.stages.run(1, values)
        maps = self.decoder.maps(fine, self.stages.at(1, values), self.stages.places[0].stride)
        terms = {"coarse": part.auxiliary * cross_entropy(maps.logits, target, weight, hardest)}
        if isinstance(self.decoder.head, PointDecoder):
            logits, labels = self._drawn(self.decoder.head, maps, target)
            terms["points"] = cross_entropy(logits, labels, weight, hardest)
        else:
            terms["patches"] = cross_entropy(self.decoder.head.everywhere(maps), target, weight, hardest)
        if not part.frozen:
            final = self.stages.at(2, self.stages.run(2, values))
            terms["final"] = cross_entropy(final, target, weight, hardest)
        return terms

    def maps(self, image: Tensor) -> Maps:
        """Run the network up to the coarse map, and make the coarse answer.

        Raises:
            ValueError: The fine map has other sides than the image at its stride.
        """
        run, place = self.compiled or self.stages, self.stages.places[0]
        values = run.run(0, run.start(image))
        fine = run.at(0, values)
        values = run.run(1, values)
        if tuple(-(-side // place.stride) for side in image.shape[2:]) != tuple(fine.shape[2:]):
            raise ValueError(
                f"the map after {place.name} is {fine.shape[2]}x{fine.shape[3]} of images of "
                f"{image.shape[2]}x{image.shape[3]} px; give sides that are multiples of {place.stride} px, "
                "and a network that pads its convolutions"
            )
        answer = None if self.compiled is None else self.compiled.answer(1, values)
        found = self.decoder.maps(fine, run.at(1, values), place.stride, answer)
        check_logits(found.logits)
        return found

    def _whole(self, image: Tensor) -> Tensor:
        """Return the logits of the network [N, K, h, w] for images [N, C, H, W]."""
        if self.compiled is None:
            return self.network(image)
        values = self.compiled.start(image)
        for stage in range(len(self.stages)):
            values = self.compiled.run(stage, values)
        return self.compiled.answer(len(self.stages) - 1, values)

    def _places(self, size: tuple[int, int]) -> int:
        """Return how many places of an image of `size` [px] the budget pays for."""
        left = (self.budget - self.least) * self.stages.macs_per_pixel * prod(size)
        return max(0, int(left / self.place_macs + ROUNDING))

    def _score(self, image: Tensor, answer: Tensor, side: int) -> Tensor:
        """Score places of `side` px [N, h, w] by an answer for images."""
        found = SCORES[self.config.policy](View(image, logits=answer.detach()))
        density = found if isinstance(found, Tensor) else found[0]
        return per_cell(density.detach(), (image.shape[2], image.shape[3]), side)

    def _drawn(self, head: PointDecoder, maps: Maps, target: Tensor) -> tuple[Tensor, Tensor]:
        """Draw points to learn from; return their logits [N, K, 1, P] and labels [N, 1, P]."""
        part, sides = self.training_part, (float(target.shape[1]), float(target.shape[2]))
        fine, coarse = ((sides[0] / p.stride, sides[1] / p.stride) for p in self.stages.places)
        points = training_points(maps.logits, coarse, part.points, part.oversample, part.importance)
        logits = head(sampled(maps.fine, points, fine), sampled(maps.logits, points, coarse))
        rows, columns = (points * points.new_tensor(sides)).long().unbind(2)
        images = torch.arange(len(target), device=target.device)[:, None]
        return logits.transpose(1, 2)[:, :, None], target[images, rows, columns][:, None]


def _step(name: str, work: float, image: Tensor) -> Step:
    return Step(name, torch.full((len(image),), work, dtype=torch.float64))
