"""What methods that go from frame to frame of a video have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from torch import Tensor, nn

from foveal.geometry.plan import Plan, check_budget
from foveal.methods.base import AdaptiveSegmenter, check_image, check_tile, mark_dense_modules
from foveal.methods.config import Resources
from foveal.methods.prediction import Prediction, Step, Trace, check_logits
from foveal.policies import View, create_policy
from foveal.tiles.video import VideoMemory, check_memory, compute

if TYPE_CHECKING:
    from foveal.tiles.memory import Memory


RunsPlans = Callable[[Tensor, Plan, VideoMemory | None], VideoMemory]
"""Computes the tiles of a plan for frames [N, C, H, W], over what a memory has."""


class FrameConfig(Protocol):
    """Settings that all of them have."""

    @property
    def budget(self) -> float:
        """Share of the dense work of every frame."""

    @property
    def first_budget(self) -> float | None:
        """Share for a frame without a memory; the budget of all if None."""

    @property
    def tile(self) -> int:
        """Side of a tile [px]."""

    @property
    def coarse_level(self) -> int:
        """Level of the places of a first frame that its budget does not refine."""


class FrameSegmenter(AdaptiveSegmenter):
    """Runs an ordinary network on the places of a frame that need it, beside what is remembered.

    A first frame has a plan by the detail in it, since nothing else is known of it.

    Args:
        network: Module from images [N, 3, H, W] to logits [N, K, h, w].
        config: Budget, tiles and levels.
        dense_modules: Names of the submodules that must see the dense map; the network's own if absent.

    Attributes:
        name: Name of the method, which memories bear.
        runs: What runs a plan instead of the network, layer by layer; None for that.
    """

    name: ClassVar[str]
    decides_from = "the frame, the pixels that were last computed, and the last answer"
    supports_masks = True
    uses_memory = True

    def __init__(
        self, network: nn.Module, config: FrameConfig, dense_modules: tuple[str, ...] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.budget, self.tile = check_budget(config.budget), check_tile(network, config.tile)
        first = config.budget if config.first_budget is None else config.first_budget
        self.first = create_policy("detail", first, config.tile, config.coarse_level)
        self.runs: RunsPlans | None = None
        mark_dense_modules(network, dense_modules)

    @classmethod
    def from_config(cls, network: nn.Module, config: Any, resources: Resources | None = None) -> Self:
        """Take everything from the config."""
        return cls(network, config)

    def forward(self, image: Tensor, memory: Memory | None = None) -> Prediction:
        """Segment the next frames [N, 3, H, W] in 0..1 of N videos.

        Without a memory, or with one that was restarted, they are the first of a scene.

        Raises:
            ValueError: The budget does not pay for the cheapest first frame, or for the decision; or the
                memory is of another method or of other frames.
        """
        check_image(image, self.network)
        before = check_memory(memory, self.name, image, self.tile)
        if before is None or not before.holds_frame:
            return self._first_frame(image, before)
        return self._next_frame(image, before)

    def masked(self, image: Tensor, wanted: Tensor) -> Prediction:
        """Segment single frames where cells are wanted [N, Gh, Gw], bool; nothing is remembered."""
        plan = self.decide(image).only(wanted)
        after = compute(self.network, image, plan, None, self.name)
        return replace(self._answer(after, Step("network", plan.work, plan)), memory=None)

    def decide(self, image: Tensor) -> Plan:
        """Return the plan for first frames [N, 3, H, W]."""
        check_image(image, self.network)
        return self.first(View(image))

    def dense(self) -> nn.Module:
        """Return the network."""
        return self.network

    def least_work(self, size: tuple[int, int]) -> float:
        """Return the least work of a first frame of `size` [px]; the later ones may cost nothing."""
        return self.first.least_work(size)

    @abstractmethod
    def _next_frame(self, image: Tensor, before: VideoMemory) -> Prediction:
        """Segment frames that are not the first."""

    def _first_frame(self, image: Tensor, before: VideoMemory | None) -> Prediction:
        """Segment frames of which nothing is remembered; `before` has what was learned."""
        plan = self.first(View(image))
        return self._answer(self._computed(image, plan, before), Step("network", plan.work, plan))

    def _computed(self, image: Tensor, plan: Plan, before: VideoMemory | None) -> VideoMemory:
        if self.runs is not None:
            return self.runs(image, plan, before)
        return compute(self.network, image, plan, before, self.name)

    def _answer(self, after: VideoMemory, *steps: Step) -> Prediction:
        check_logits(after.logits)
        return Prediction(after.logits, after.size, Trace(steps), after, after.known_labels)
