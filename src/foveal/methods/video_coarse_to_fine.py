"""Coarse to fine in a video: one plan says for every place whether to keep it, or how closely to compute it.

Adapts   space and time: every tile keeps its answer, or is computed at a quarter, half or full resolution.
Decides  the change of the picture since a place was computed, the uncertainty of its answer, and its age.
Knob     budget, the share of the dense work of every frame.
Source   this project. The plan is the one of least expected error that the budget pays for; the last answer
         takes the place of a first pass. Cameras that move are not compensated: what moved counts as changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from foveal.geometry.plan import SKIP, Plan
from foveal.geometry.reuse import choose_levels
from foveal.methods.config import MethodConfig, setting
from foveal.methods.frames import FrameSegmenter
from foveal.methods.prediction import Prediction, Step
from foveal.policies import POLICIES, View
from foveal.policies.budgeted import Score, per_cell
from foveal.policies.refinement import Refinement
from foveal.policies.temporal import change, differs, is_new_scene
from foveal.program.settings import ReuseRun
from foveal.storage.names import find
from foveal.storage.schema import MOST_LEVEL, MOST_TILE
from foveal.tiles.video import VideoMemory

NOISE, CLEAR = ReuseRun.noise, ReuseRun.clear
"""Change of a cell [0..1] below which it is taken for noise, and from which its answer is taken for wrong."""
UNSEEN = ReuseRun.unseen
"""Uncertainty that every cell has, whatever its last answer: what is new there is not known."""
STALE = ReuseRun.stale
"""Error of an answer that is wrong because the picture changed, in errors of the coarsest level."""
OVERDUE = ReuseRun.overdue
"""Error that an answer as old as allowed has beside its own; it grows with its age."""


@dataclass(frozen=True)
class VideoCoarseToFineConfig(MethodConfig):
    """Settings of coarse to fine in a video."""

    policy: str = setting("weighted_entropy", "Score of the uncertainty of the last answer.")
    tile: int = setting(32, "Side of a tile [px].", 1, MOST_TILE)
    coarse_level: int = setting(2, "Coarsest level: 0 full resolution, 1 half, ...", 0, MOST_LEVEL)
    first_budget: float | None = setting(
        None, "Share of the dense work for a frame without a memory; the budget of all if absent.", 0.0, 1.0
    )
    max_age: int = setting(
        30, "Frames after which a place whose pixels differ at all is computed again.", 1, 1_000_000
    )
    hysteresis: float = setting(
        0.1, "Gain that another level than the last one needs, as a share of the uncertainty.", 0.0, 10.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        find(self.policy, _scores(), "score of uncertainty")

    def program_run(self) -> ReuseRun:
        """Say what a program decides by."""
        return ReuseRun(
            self.budget,
            self.policy,
            self.tile,
            self.coarse_level,
            Refinement.level_gain,
            self.max_age,
            self.hysteresis,
        )


class VideoCoarseToFine(FrameSegmenter):
    """Runs an ordinary network on the tiles of every frame that it pays to compute again.

    Where a new scene begins, a frame is a first one.

    Args:
        network: Module from images [N, 3, H, W] to logits [N, K, h, w].
        config: Budget, tiles and levels.
        dense_modules: Names of the submodules that must see the dense map; the network's own if absent.

    Attributes:
        level_gain: What a step to level 0, 1, ... gains, as a share of the uncertainty.
    """

    Config = VideoCoarseToFineConfig
    name = "video_coarse_to_fine"

    def __init__(
        self,
        network: nn.Module,
        config: VideoCoarseToFineConfig,
        dense_modules: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(network, config, dense_modules)
        self.config, self.score = config, _scores()[config.policy]
        self.level_gain = Refinement.level_gain

    def _next_frame(self, image: Tensor, before: VideoMemory) -> Prediction:
        plan = Plan(self._levels(image, before), self.tile, before.size)
        return self._answer(self._computed(image, plan, before), Step("network", plan.work, plan))

    def _levels(self, image: Tensor, before: VideoMemory) -> Tensor:
        """Choose the level of every cell of the next frames [N, Gh, Gw], SKIP to keep its answer."""
        differ = differs(image, before.picture, self.tile)
        levels = torch.full(differ.shape, SKIP, dtype=torch.int8)
        scenes = is_new_scene(image, before.picture)
        going = differ.flatten(1).any(1) & ~scenes
        if bool(scenes.any()):
            levels[scenes] = self.first(View(image[scenes.to(image.device)])).levels
        if not bool(going.any()):
            return levels
        kept, computed = self._errors(image, before, differ)
        tiles = self.budget * prod(before.size) / self.tile**2
        for n in going.nonzero().flatten().tolist():
            levels[n] = choose_levels(kept[n], computed[:, n], tiles)
        return levels

    def _errors(self, image: Tensor, before: VideoMemory, differ: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate the error of every cell if it is kept [N, Gh, Gw], or computed [levels, N, Gh, Gw]."""
        shares = torch.ones(len(image), *before.size)
        area = per_cell(shares, before.size, self.tile)
        maps = self.score(View(image, logits=before.logits))
        density = maps[0] if isinstance(maps, tuple) else maps
        uncertain = per_cell(density, before.size, self.tile).cpu() + UNSEEN * area
        steps = [self._gain_of(level) for level in range(self.config.coarse_level)]
        at_level = torch.tensor([0.0, *steps]).cumsum(0)
        errors = at_level[:, None, None, None] * uncertain
        held = before.held.clamp(max=len(steps))
        last = at_level[held] * uncertain
        for level, error in enumerate(errors):
            error += self.config.hysteresis * uncertain * (held != level)
        wrong = ((change(image, before.picture, self.tile) - NOISE) / (CLEAR - NOISE)).clamp(0, 1)
        age = before.age.cpu() + 1
        wrong = (wrong * (1 + age / self.config.max_age)).clamp(max=1)
        stale = STALE * (at_level[-1] * uncertain + UNSEEN * area)
        overdue = OVERDUE * area * (age / self.config.max_age) * (differ & (age >= self.config.max_age))
        kept = torch.lerp(last, torch.maximum(stale, last), wrong) + overdue
        levels = torch.arange(len(errors))[:, None, None, None]
        # Where noise or age alone speaks against an answer, a coarser one gains nothing; where the pixels are
        # those that were computed, none does.
        needless = ~differ | ((wrong == 0) & (levels > held))
        return kept, torch.where(needless, torch.maximum(errors, kept), errors)

    def _gain_of(self, level: int) -> float:
        return self.level_gain[min(level, len(self.level_gain) - 1)]


def _scores() -> dict[str, Score]:
    """List the scores by uncertainty, by name."""
    return {name: entry.score for name, entry in POLICIES.items() if entry.needs_pass and entry.score}
