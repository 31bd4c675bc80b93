"""BlockCopy: of every frame of a video some blocks are computed, and the rest keeps its last answer.

Adapts   time: a block is computed, or copied from the last frame.
Decides  a policy network that learns from the stream itself, without labels; or a score.
Knob     budget, the share of the dense work of every frame, decision and learning included.
Source   Verelst and Tuytelaars, "BlockCopy: High-Resolution Video Processing with Block-Sparse Feature
         Propagation and Online Policies", ICCV 2021.
Differs  the budget is kept in every frame, also in the first one, whose places are coarse where it does not
         pay for more (`first_budget`); blocks are ranked, or drawn as in the paper; a block whose pixels are
         those that were computed is copied without asking; blocks of any size and images of any size. The
         policy begins from a prior, change, uncertainty and age, to which it adds what it learns, and a
         block is rewarded for what it told more than the others (`prior`; none: as in the paper). Blocks
         are of one tile, as small beside a frame of 480x360 as the paper's are beside one of 2048x1024.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from foveal.cost import count_macs
from foveal.geometry.plan import SKIP, Plan, grid
from foveal.methods.config import MethodConfig, setting
from foveal.methods.frames import FrameSegmenter
from foveal.methods.prediction import Prediction, Step
from foveal.policies import POLICIES, View
from foveal.policies.budgeted import Score, per_cell
from foveal.policies.online import Frame, OnlinePolicy, channels_of, policy_net
from foveal.policies.temporal import BLOCK_SCORES, differs, staleness
from foveal.storage.names import find
from foveal.storage.schema import MOST_LEVEL, MOST_TILE
from foveal.tiles.video import VideoMemory

ONLINE = "online"
CHOICES = {"rank": False, "sample": True}
"""Whether blocks are drawn."""
PRIORS = {"staleness": True, "none": False}
"""Whether the online policy begins from a score that it has not to learn."""
LEARNING = 2
"""What a step of learning takes beside the decision, in decisions: gradients of weights and of features."""


@dataclass(frozen=True)
class BlockCopyConfig(MethodConfig):
    """Settings of BlockCopy."""

    policy: str = setting(
        ONLINE, "What decides which blocks are computed: online, difference, random, or an uncertainty."
    )
    tile: int = setting(32, "Side of a tile [px].", 1, MOST_TILE)
    coarse_level: int = setting(
        2, "Level of the places of a first frame that its budget does not refine.", 0, MOST_LEVEL
    )
    block_tiles: int = setting(1, "Tiles on the side of a block, which is computed or copied as one.", 1, 64)
    first_budget: float | None = setting(
        None, "Share of the dense work for a frame without a memory; the budget of all if absent.", 0.0, 1.0
    )
    choice: str = setting("rank", "rank: blocks of the highest probability; sample: drawn, as in the paper.")
    policy_width: int = setting(8, "Channels of the first layer of the online policy.", 1, 1024)
    prior: str = setting(
        "staleness", "What the online policy begins from: staleness (change, uncertainty, age), or none."
    )
    learn_every: int = setting(1, "Frames between two steps of learning online; 0 for none.", 0, 1_000_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        find(self.policy, _policies(), "policy of blocks")
        find(self.choice, CHOICES, "choice of blocks")
        find(self.prior, PRIORS, "prior of the online policy")


class BlockCopy(FrameSegmenter):
    """Runs an ordinary network on some blocks of every frame, beside what it computed before.

    Args:
        network: Module from images [N, 3, H, W] to logits [N, K, h, w].
        config: Budget, tiles, blocks, and how the policy learns.
        dense_modules: Names of the submodules that must see the dense map; the network's own if absent.

    Attributes:
        online: How the policy learns; another may be put in its place. None for a policy that does not.
    """

    Config = BlockCopyConfig
    name = "blockcopy"

    def __init__(
        self, network: nn.Module, config: BlockCopyConfig, dense_modules: tuple[str, ...] | None = None
    ) -> None:
        super().__init__(network, config, dense_modules)
        self.config, self.block = config, config.block_tiles * config.tile
        self.online: OnlinePolicy | None = None
        self.score: Score | None = _policies()[config.policy]
        if self.score is None:
            prior = PRIORS[config.prior]
            self.online = OnlinePolicy(config.policy_width, every=config.learn_every, has_prior=prior)
            self._macs_of_pixel = _macs_of_pixel(network, self.block)

    def _next_frame(self, image: Tensor, before: VideoMemory) -> Prediction:
        changed = differs(image, before.picture, self.block)
        frame = self._frame(image, before)
        logits, spent = self._judge(frame, before, changed)
        computed = self._choose(frame, before.state, logits, changed, self.budget - spent)
        plan = Plan.from_blocks(torch.where(computed, 0, SKIP), self.block, self.tile, before.size)
        after = self._computed(image, plan, before)
        if self.online is not None:
            after = after.with_state(self._learned(frame, before.state, after, computed, changed, spent))
        steps = (Step("policy", spent),) if bool(spent.any()) else ()
        return self._answer(after, *steps, Step("network", plan.work, plan))

    def _first_frame(self, image: Tensor, before: VideoMemory | None) -> Prediction:
        found = super()._first_frame(image, before)
        after = found.memory
        assert isinstance(after, VideoMemory), "was just left"
        if self.online is None or after.state:
            return found
        channels = channels_of(image.shape[1], after.logits.shape[1])
        share = torch.ones(len(image), dtype=torch.float64)
        return replace(found, memory=after.with_state(self.online.start(len(image), channels, share)))

    def _frame(self, image: Tensor, before: VideoMemory) -> Frame:
        last = (before.age == 0).float()
        blocks = nn.functional.max_pool2d(last[:, None], self.config.block_tiles, ceil_mode=True)[:, 0] > 0
        frame = Frame(image, before.picture, before.logits, blocks, self.block)
        if self.online is None or not self.online.has_prior:
            return frame
        oldest = nn.functional.max_pool2d(
            before.age[:, None].float(), self.config.block_tiles, ceil_mode=True
        )
        view = View(image, before.logits, previous=before.picture)
        stale = staleness(view, oldest[:, 0].cpu() + 1, self.block)
        middle = stale.flatten(1).quantile(1 - self.budget, dim=1)  # half a chance where the budget ends
        return replace(frame, prior=stale - middle[:, None, None])

    def _judge(self, frame: Frame, before: VideoMemory, changed: Tensor) -> tuple[Tensor, Tensor]:
        """Return a logit per block [N, Bh, Bw], positive to compute it, and the work of the decision [N]."""
        streams = changed.flatten(1).any(1)
        spent = torch.zeros(len(changed), dtype=torch.float64)
        if self.budget >= 1 or not bool(streams.any()):
            return torch.ones(changed.shape), spent
        if self.online is None:
            assert self.score is not None, "there is one where nothing learns"
            view = View(frame.image, frame.logits, previous=frame.picture)
            maps = self.score(view)
            density = maps[0] if isinstance(maps, tuple) else maps
            return per_cell(density, frame.size, self.block).cpu().clamp(min=1e-9), spent
        learns = self.online.learns(before.state) & streams
        spent[streams] = self._decision(frame)
        spent[learns] *= 1 + LEARNING
        if float(spent.max()) > self.budget:
            raise ValueError(
                f"budget is {self.budget:g} of the dense work and the policy alone takes "
                f"{float(spent.max()):.3g} of it; raise the budget, or give a smaller policy_width or more "
                "block_tiles"
            )
        return self.online.logits(before.state, frame, streams), spent

    def _decision(self, frame: Frame) -> float:
        """Return the work of one decision, as a share of the dense network's on the frame."""
        assert self.online is not None, "nothing else is paid for"
        net = policy_net(frame.channels, self.online.width, self.online.seed, frame.side)
        blocks = frame.computed[0].numel()
        return blocks * _macs_of_block(net, frame.side) / (self._macs_of_pixel * prod(frame.size))

    def _choose(
        self, frame: Frame, state: Mapping[str, Tensor], logits: Tensor, changed: Tensor, left: Tensor
    ) -> Tensor:
        """Say which blocks are computed [N, Bh, Bw]: those of the largest logits that the budget pays for."""
        if self.online is not None and CHOICES[self.config.choice] and self.budget < 1:
            wanted = changed & self.online.draw(state, logits)
        else:
            wanted = changed
        if self.budget >= 1:
            return wanted
        costs = _tiles_of_blocks(frame.size, self.tile, self.config.block_tiles)
        order = (
            logits.masked_fill(~wanted, -torch.inf)
            .flatten(1)
            .sort(dim=1, descending=True, stable=True)
            .indices
        )
        total = (costs.flatten() * wanted.flatten(1))[torch.arange(len(order))[:, None], order].cumsum(1)
        spare = left * prod(frame.size) / self.tile**2 + 1
        chosen = torch.zeros_like(wanted.flatten(1)).scatter(1, order, total <= spare[:, None])
        return wanted & chosen.view_as(wanted)

    def _learned(
        self,
        frame: Frame,
        state: Mapping[str, Tensor],
        after: VideoMemory,
        computed: Tensor,
        changed: Tensor,
        spent: Tensor,
    ) -> dict[str, Tensor]:
        """Return the state after the frames, learned from where it is time to."""
        assert self.online is not None, "nothing else learns"
        counted = self.online.counted(state, computed)
        decided = changed & self.online.learns(state)[:, None, None] & (spent > 0)[:, None, None]
        if not bool(decided.any()):
            return counted
        every = self.config.learn_every
        decision = self._decision(frame) * (1 + LEARNING / every)
        target = torch.full((len(changed),), max(0.01, self.budget - decision), dtype=torch.float64)
        return self.online.learn(counted, frame, after.logits, computed, decided, target)


def _policies() -> dict[str, Score | None]:
    """List what may decide, by name; what learns has no score."""
    uncertainties = {name: entry.score for name, entry in POLICIES.items() if entry.needs_pass}
    return {ONLINE: None, **BLOCK_SCORES, **uncertainties}


def _tiles_of_blocks(size: tuple[int, int], tile: int, block_tiles: int) -> Tensor:
    """Count the tiles of every block [Bh, Bw]; those at the edges have fewer."""
    rows, columns = (
        (count - torch.arange(0, count, block_tiles)).clamp(max=block_tiles) for count in grid(size, tile)
    )
    return rows[:, None] * columns


def _macs_of_block(net: nn.Module, side: int) -> int:
    """Count what the policy takes for one block [MAC], from the shapes of its weights."""
    found = 0
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            shortcut = name.endswith("shortcut.0")
            side = side if shortcut else side // module.stride[0]
            found += module.weight.numel() * side**2
    return found


_COUNTED: WeakKeyDictionary[nn.Module, dict[int, float]] = WeakKeyDictionary()
"""What networks take for a pixel of a block [MAC]: methods of many budgets are made from one network."""


def _macs_of_pixel(network: nn.Module, block: int) -> float:
    """Return what the network takes for a pixel [MAC], counted once."""
    counted = _COUNTED.setdefault(network, {})
    if block not in counted:
        counted[block] = _count_pixel(network, block)
    return counted[block]


def _count_pixel(network: nn.Module, block: int) -> float:
    """Count what the network takes for a pixel [MAC], by running it on one block."""
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    channels = int(getattr(network, "in_channels", 3))
    image = torch.zeros(1, channels, block, block, dtype=like.dtype, device=like.device)
    twin = copy.deepcopy(network).eval()
    return max(1, count_macs(lambda: twin(image)).total) / block**2
