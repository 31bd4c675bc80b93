"""A policy network that learns while it decides: which blocks of a video are computed, which are copied.

It has no labels: a block that was computed is rewarded for what the network's new answer tells beyond the one
that was kept, and for the work that is left to spend. Weights, statistics of the optimiser and the moving
cost are a value, one for every stream: `start` makes it, `learn` returns the next one.

Source: Verelst and Tuytelaars, "BlockCopy", ICCV 2021, sections 3.2 and 3.3, and the released code.
Differs: the image is averaged, not picked, and the last answer enters as probabilities, whose range does not
depend on the network; any image size; a step of learning takes the gradient of one frame. With a prior, which
the paper has not: logits begin as the prior's, what is learned is added and bounded, and a block is rewarded
for what it told more than the other computed ones, in deviations of this frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from foveal.objectives.information_gain import Reward, block_maxima, segmentation_gain, signed_square
from foveal.objectives.policy_gradient import reinforce

REDUCED = 4
"""Side of the squares of pixels that the network sees one sample of, as in the paper [px]."""
SIDES = (4, 32)
"""Least and most samples on a block's side: the total stride of the network."""
STEPS = (1, 2, 2)
"""Strides of the residual blocks; their widths double."""
LAST = 3
"""Convolutions after them, of stride 2 as far as the total stride asks for it."""
REACH = 2.0
"""Most that learning adds to the logit of a prior, or takes: what is old is computed in the end."""
SMOOTHING, EPSILON = 0.99, 1e-8
"""Of the optimiser's mean square, as PyTorch's RMSprop has them."""
WEIGHT, SQUARE = "weight.", "square."
"""Beginnings of names in the state."""

State = Mapping[str, Tensor]


class FrameNorm(nn.Module):
    """Normalises every channel of an image by its own mean and deviation, whatever the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, h, w]."""
        deviation, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        scaled: Tensor = (x - mean) * torch.rsqrt(deviation + 1e-5)
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(incoming, outgoing, 3, stride, 1, bias=False),
            FrameNorm(outgoing),
            nn.ReLU(),
            nn.Conv2d(outgoing, outgoing, 3, 1, 1, bias=False),
            FrameNorm(outgoing),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or incoming != outgoing:
            convolution = nn.Conv2d(incoming, outgoing, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, FrameNorm(outgoing))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, h, w]."""
        return F.relu(self.inner(x) + self.shortcut(x))


class OnlinePolicyNet(nn.Module):
    """Maps what is known of frames [N, C, side Bh, side Bw] to a logit per block [N, Bh, Bw].

    Args:
        channels: Channels of what is known.
        width: Channels of the first convolution, 32 in the paper.
        side: Samples on a block's side: 4, 8, 16 or 32.
    """

    def __init__(self, channels: int, width: int, side: int) -> None:
        super().__init__()
        halvings = (side // prod(STEPS)).bit_length() - 1
        strides = [2 if k < halvings else 1 for k in range(LAST)]
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), FrameNorm(width)]
        layers += [nn.ReLU()]
        incoming = width
        for step, stride in enumerate(STEPS):
            layers += [ResidualBlock(incoming, width << step, stride)]
            incoming = width << step
        for stride in strides[:-1]:
            layers += [
                nn.Conv2d(incoming, incoming, 3, stride, 1, bias=False),
                FrameNorm(incoming),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(incoming, 1, 3, strides[-1], 1))

    def forward(self, known: Tensor) -> Tensor:
        """Return the logits of computing a block."""
        logits: Tensor = self.layers(known)
        return logits[:, 0]


@dataclass(frozen=True)
class Frame:
    """What the policy may look at.

    Attributes:
        image: The next frames [N, C, H, W] in 0..1.
        picture: Pixels that were last computed [N, C, H, W].
        logits: The last answer [N, K, h, w].
        computed: Which blocks the last frame computed [N, Bh, Bw].
        block: Side of a block [px].
        prior: Logits of computing a block that learning begins from [N, Bh, Bw]; None for 0.
    """

    image: Tensor
    picture: Tensor
    logits: Tensor
    computed: Tensor
    block: int
    prior: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames [px]."""
        return self.image.shape[2], self.image.shape[3]

    @property
    def channels(self) -> int:
        """Channels of the thumbnail."""
        return channels_of(self.image.shape[1], self.logits.shape[1])

    @property
    def side(self) -> int:
        """Samples on a block's side in the thumbnail."""
        return samples_of(self.block)

    def thumbnail(self) -> Tensor:
        """Return everything at a quarter of the resolution, about [N, C, side Bh, side Bw], float32."""
        rows, columns = self.computed.shape[1:]
        sides = rows * self.side, columns * self.side
        rim = (0, columns * self.block - self.size[1], 0, rows * self.block - self.size[0])
        seen = F.pad(torch.cat([self.image, self.picture], 1).float(), rim, mode="replicate")
        answer = F.interpolate(self.logits.float().softmax(1), self.size, mode="nearest")
        answer = F.pad(answer, rim, mode="replicate")
        maps = [F.interpolate(x, sides, mode="area") - 0.5 for x in (seen, answer)]
        last = F.interpolate(self.computed[:, None].float() - 0.5, sides, mode="nearest")
        return torch.cat([*maps, last.to(seen.device)], 1)


@dataclass(frozen=True)
class OnlinePolicy:
    """How the policy learns.

    Attributes:
        width: Channels of the first convolution.
        gamma: Weight of the work that is left against the information that is gained.
        inertia: Share of the old moving cost that a frame leaves.
        rate: Step of the optimiser, RMSprop.
        decay: Weight decay.
        every: Frames between two steps of learning; 0 never learns.
        seed: Of the first weights, and of what is drawn.
        reward: Says what a computed place told.
        has_prior: Whether frames have a prior; the first weights then add nothing to it.
    """

    width: int = 32
    gamma: float = 5.0
    inertia: float = 0.9
    rate: float = 1e-4
    decay: float = 1e-3
    every: int = 4
    seed: int = 0
    reward: Reward = segmentation_gain
    has_prior: bool = False

    def start(self, streams: int, channels: int, share: Tensor) -> dict[str, Tensor]:
        """Return the state after first frames that computed a share of their blocks [N]."""
        weights = policy_net(channels, self.width, self.seed, SIDES[1]).state_dict()
        if self.has_prior:
            last = list(weights)[-2:]  # weight and bias of the last convolution
            weights = {name: torch.zeros_like(x) if name in last else x for name, x in weights.items()}
        state = {WEIGHT + name: x.expand(streams, *x.shape).clone() for name, x in weights.items()}
        state |= {SQUARE + name: torch.zeros_like(state[WEIGHT + name]) for name in weights}
        return state | {"cost": share.double(), "frames": torch.ones(streams, dtype=torch.int64)}

    def learns(self, state: State) -> Tensor:
        """Whether the next frame of every stream is one to learn from [N], bool."""
        return state["frames"] % self.every == 0 if self.every else state["frames"] < 0

    @torch.no_grad()
    def logits(self, state: State, frame: Frame, chosen: Tensor) -> Tensor:
        """Return the logits of computing a block [N, Bh, Bw]; 0 for streams that are not chosen [N]."""
        found = torch.zeros(frame.computed.shape)
        thumbnail = frame.thumbnail() if bool(chosen.any()) else None
        for n in chosen.nonzero().flatten().tolist():
            assert thumbnail is not None, "was made for those that are chosen"
            found[n] = self._run(_weights(state, n, frame.image.device), frame, n, thumbnail)
        return found

    def draw(self, state: State, logits: Tensor) -> Tensor:
        """Draw blocks by their probabilities, always alike for the same state [N, Bh, Bw], bool."""
        drawn = torch.zeros_like(logits, dtype=torch.bool)
        for n, frame in enumerate(state["frames"].tolist()):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + frame)
            drawn[n] = torch.rand(logits[n].shape, generator=generator) < logits[n].sigmoid()
        return drawn

    def counted(self, state: State, computed: Tensor) -> dict[str, Tensor]:
        """Return the state after frames in which blocks were computed [N, Bh, Bw]: cost and frames."""
        share = computed.double().mean((1, 2))
        cost = self.inertia * state["cost"] + (1 - self.inertia) * share
        return {**state, "cost": cost, "frames": state["frames"] + 1}

    def learn(
        self, state: State, frame: Frame, after: Tensor, computed: Tensor, decided: Tensor, target: Tensor
    ) -> dict[str, Tensor]:
        """Return the state after a step of learning from frames.

        Args:
            state: With the moving cost after the frames.
            frame: What the policy saw.
            after: Logits of the frames [N, K, h, w].
            computed: Which blocks were computed [N, Bh, Bw].
            decided: Which blocks the policy was asked about [N, Bh, Bw].
            target: Share of the blocks to compute [N].
        """
        gain = block_maxima(self.reward(frame.logits, after), frame.size, frame.block).cpu()
        gain = beyond_mean(gain, computed & decided) if self.has_prior else gain
        bonus = self.gamma * signed_square(target, state["cost"]).float()
        worth, found = gain + bonus[:, None, None], dict(state)
        with torch.inference_mode(False), torch.enable_grad():
            thumbnail = frame.thumbnail().clone()  # what inference mode made cannot be learned from
            computed, decided, worth = computed.clone(), decided.clone(), worth.clone()
            for n in decided.flatten(1).any(1).nonzero().flatten().tolist():
                weights = {
                    name: w.clone().requires_grad_()
                    for name, w in _weights(state, n, thumbnail.device).items()
                }
                logits = self._run(weights, frame, n, thumbnail)
                asked = decided[n]
                loss = reinforce(logits[asked], computed[n][asked], worth[n][asked])
                slopes = torch.autograd.grad(loss, list(weights.values()))
                self._step(found, n, dict(zip(weights, slopes, strict=True)))
        return found

    def _step(self, state: dict[str, Tensor], n: int, slopes: Mapping[str, Tensor]) -> None:
        """Move the weights of one stream by RMSprop, in a state whose tensors are replaced, not changed."""
        for name, slope in slopes.items():
            weight, square = state[WEIGHT + name].clone(), state[SQUARE + name].clone()
            slope = slope.detach().to(weight.device) + self.decay * weight[n]
            square[n] = SMOOTHING * square[n] + (1 - SMOOTHING) * slope.square()
            weight[n] -= self.rate * slope / (square[n].sqrt() + EPSILON)
            state[WEIGHT + name], state[SQUARE + name] = weight, square

    def _run(self, weights: Mapping[str, Tensor], frame: Frame, n: int, thumbnail: Tensor) -> Tensor:
        """Return the logits of one stream [Bh, Bw], on the CPU."""
        net = policy_net(thumbnail.shape[1], self.width, self.seed, frame.side)
        with torch.autocast(thumbnail.device.type, enabled=False):
            learned: Tensor = functional_call(net, dict(weights), (thumbnail[n : n + 1],))[0].cpu()
        if frame.prior is None:
            return learned
        return frame.prior[n].clone() + REACH * torch.tanh(learned / REACH)


@cache
def policy_net(channels: int, width: int, seed: int, side: int) -> OnlinePolicyNet:
    """Return the network with its first weights, which follow from the seed; nobody changes them."""
    with torch.random.fork_rng(devices=()), torch.inference_mode(False):
        torch.manual_seed(seed)
        return OnlinePolicyNet(channels, width, side).eval().requires_grad_(False)


def samples_of(block: int) -> int:
    """Return the samples on the side of a block of so many pixels: a power of two, about a quarter."""
    least, most = SIDES
    return int(min(most, max(least, 1 << (max(1, block // REDUCED).bit_length() - 1))))


def beyond_mean(gain: Tensor, computed: Tensor) -> Tensor:
    """Return what computed blocks gained beyond their mean, in deviations; 0 for the others [N, Bh, Bw].

    Every gain is positive: without the mean, what is computed at all would become likelier.
    """
    counted = computed.to(gain)
    count = counted.sum((1, 2), keepdim=True).clamp(min=1)
    mean = (gain * counted).sum((1, 2), keepdim=True) / count
    beyond = (gain - mean) * counted
    deviation = (beyond.square().sum((1, 2), keepdim=True) / count).sqrt()
    return beyond / deviation.clamp(min=1e-6)


def channels_of(channels: int, classes: int) -> int:
    """Return the channels of the thumbnail: frame, last computed pixels, last answer, last blocks."""
    return 2 * channels + classes + 1


def width_of(state: State) -> int:
    """Return the width of the network whose weights a state holds."""
    return int(state[WEIGHT + "layers.0.weight"].shape[1])


def _weights(state: State, n: int, device: torch.device) -> dict[str, Tensor]:
    """Return the weights of one stream."""
    return {k.removeprefix(WEIGHT): x[n].to(device) for k, x in state.items() if k.startswith(WEIGHT)}
