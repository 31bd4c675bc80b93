"""One residual block on tiles: what is saved in operations and in time, over block size and share.

Source: section 4.4.1 of SegBlocks (Verelst and Tuytelaars, TPAMI 2022). Norms are folded into the
convolutions, for dense and tiles alike. A block is two tiles wide at full resolution, one tile at half.
Neither cutting nor composing counts, nor tables: all layers of a scale share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from foveal.cost import alternate, count_macs
from foveal.geometry.plan import Plan
from foveal.kernels.abi import plain
from foveal.ops import Convolution, convolved, tuning
from foveal.tiles import TileTensor, split
from studies.segblocks.engines import random_blocks
from studies.segblocks.experiment import Experiment
from studies.segblocks.networks import Networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Sample:
    """A point of a sweep: what is varied, the side of a block, and a plan of such blocks."""

    sweep: str
    block: int
    plan: Plan


@dataclass(frozen=True, kw_only=True)
class ResidualRow:
    """An engine at a block size and a share.

    Attributes:
        sweep: What is varied, "block" or "share".
        block: Side of a block [samples].
        engine: "pytorch" or "native".
        tile: Side of a tile [samples].
        share: Of the blocks at full resolution, as realised.
        dense_ms: Time of the engine's own dense run [ms].
        ms: Time on tiles [ms].
        dense_macs: Of the dense run [MAC].
        macs: On tiles [MAC].
        theoretical: Speed-up in MACs.
        speedup: Over the engine's own dense run.
        best_speedup: Over the fastest dense run.
        eta: Speed-up over the theoretical one.
    """

    sweep: str
    block: int
    engine: str
    tile: int
    share: float
    dense_ms: float
    ms: float
    dense_macs: int
    macs: int
    theoretical: float
    speedup: float
    best_speedup: float
    eta: float


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """What the paper says in words, and the figures in it."""

    says: str
    saved: float | None = None
    theoretical: float | None = None
    speedup: float | None = None
    block: int | None = None
    share: float | None = None
    eta: float | None = None
    source: str = "SegBlocks (TPAMI 2022), section 4.4.1, in words: its figures have no numbers"


LARGE = 1.92
"""Speed-up with large blocks in the paper."""
LIMIT = 0.75
"""Share of the blocks above which blocks of 8 gain nothing in the paper."""
PAPER = [
    PaperRow(
        says="blocks above 32; half of them at full resolution in words, a quarter by the operations",
        saved=0.56,
        theoretical=2.3,
        speedup=LARGE,
    ),
    PaperRow(says="blocks below 4 are slower than dense", block=4, speedup=1.0),
    PaperRow(says="block 8 gains below this share", block=8, share=LIMIT, speedup=1.0),
    PaperRow(says="the gain is 70 % of the theoretical one at lower shares", eta=0.7),
]
BLOCKS = 4, 8, 16, 32, 64, 128
SHARES = 0.0, 0.125, 0.25, 0.5, 0.75, 1.0


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, norms folded in.

    Args:
        channels: Channels of input and output.
        native: Whether the layers are joined, as in a fused network.
    """

    def __init__(self, channels: int = 64, native: bool = False) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.native = native
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._joined = [
            Convolution(layer.weight, layer.bias, padding=(1, 1), low=0.0)
            for layer in (self.first, self.second)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        if self.native:
            return convolved(convolved(x, self._joined[0]), self._joined[1], x)
        return (self.second(self.first(x).relu()) + x).relu()


def run(networks: Networks) -> list[ResidualRow]:
    """Measure one residual block over block size and share; networks of the study are not needed."""
    if networks.study.quick:
        return measure((64, 128), blocks=(4, 8, 16, 32), shares=(0, 0.25, 0.75, 1), repeat=3)
    return measure()


def measure(
    size: tuple[int, int] = (256, 512),
    channels: int = 64,
    blocks: Sequence[int] = BLOCKS,
    shares: Sequence[float] = SHARES,
    fixed: tuple[int, float] = (8, 0.25),
    repeat: int = 10,
) -> list[ResidualRow]:
    """Measure a residual block over block sizes at one share, and over shares at one block size.

    Args:
        size: Height and width of the map.
        channels: Its channels.
        blocks: Sides of a block [samples], even.
        shares: Shares of the blocks at full resolution.
        fixed: Block of the sweep over shares, and share of the sweep over blocks.
        repeat: Timed rounds of everything in turns.

    Raises:
        ValueError: A block cannot be halved, or a share is none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(1, channels, *size).contiguous(memory_format=torch.channels_last)
        block = ResidualBlock(channels)
    networks = {"pytorch": block, "native": joined(block)}
    cases = [("block", side, fixed[1]) for side in blocks] + [("share", fixed[0], share) for share in shares]
    return [
        row
        for sweep, side, share in cases
        for row in _measure(networks, x, Sample(sweep, side, random_blocks(size, side, share)), repeat)
    ]


def joined(block: ResidualBlock) -> ResidualBlock:
    """Return the same block as the fused network runs it."""
    twin = ResidualBlock(block.first.in_channels, native=True)
    twin.load_state_dict(block.state_dict())
    return twin


def _measure(
    networks: dict[str, ResidualBlock], x: Tensor, sample: Sample, repeat: int
) -> Iterator[ResidualRow]:
    """Count and time both engines, dense and on tiles, in turns."""
    plan = sample.plan
    runs = dict(_runs(networks, x, plan))
    with torch.no_grad(), tuning():
        macs = {key: count_macs(run).total for key, run in runs.items()}
    ms = {key: timing.median for key, timing in alternate(runs, repeat).items()}
    fastest = min(value for key, value in ms.items() if key.endswith("dense"))
    for name in networks:
        dense, tiles = f"{name} dense", f"{name} tiles"
        theoretical, speedup = macs[dense] / macs[tiles], ms[dense] / ms[tiles]
        yield ResidualRow(
            sweep=sample.sweep,
            block=sample.block,
            engine=name,
            tile=plan.tile,
            share=round(plan.share(0), 4),
            dense_ms=round(ms[dense], 4),
            ms=round(ms[tiles], 4),
            dense_macs=macs[dense],
            macs=macs[tiles],
            theoretical=round(theoretical, 4),
            speedup=round(speedup, 4),
            best_speedup=round(fastest / ms[tiles], 4),
            eta=round(speedup / theoretical, 4),
        )


def _runs(
    networks: dict[str, ResidualBlock], x: Tensor, plan: Plan
) -> Iterator[tuple[str, Callable[[], Tensor | TileTensor]]]:
    with torch.inference_mode():
        tiles = split(x, plan)
    for name, network in networks.items():
        for kind, given in (("dense", x), ("tiles", tiles)):
            yield f"{name} {kind}", partial(_run, network, given)


def _run(network: ResidualBlock, given: Tensor | TileTensor) -> Tensor | TileTensor:
    if network.native:
        return network(given)
    with plain():
        return network(given)


def draw_blocks(rows: list[ResidualRow], axes: Axes) -> None:
    """Draw the speed-up over the size of a block."""
    found = [row for row in rows if row.sweep == "block"]
    _draw(found, axes, "block")
    axes.axhline(LARGE, color="C3", linestyle=":", label="paper: blocks above 32")
    axes.set_xscale("log", base=2)
    axes.set_xticks([row.block for row in found], [str(row.block) for row in found])
    axes.set_xlabel("side of a block")
    axes.legend(fontsize="small")


def draw_shares(rows: list[ResidualRow], axes: Axes) -> None:
    """Draw the speed-up over the share of the blocks at full resolution."""
    _draw([row for row in rows if row.sweep == "share"], axes, "share")
    axes.plot([LIMIT], [1.0], "x", color="C3", label="paper: block 8 gains below")
    axes.set_xlabel("share of the blocks at full resolution")
    axes.legend(fontsize="small")


def _draw(rows: list[ResidualRow], axes: Axes, over: Literal["block", "share"]) -> None:
    for colour, engine in enumerate(dict.fromkeys(row.engine for row in rows)):
        mine = [row for row in rows if row.engine == engine]
        places = [float(row.block) if over == "block" else row.share for row in mine]
        axes.plot(places, [row.speedup for row in mine], "o-", color=f"C{colour}", label=engine)
        if colour == 0:
            axes.plot(places, [row.theoretical for row in mine], "--", color="0.4", label="in operations")
    axes.axhline(1.0, color="0.7", linewidth=1)
    axes.set_ylabel("speed-up over dense")
    axes.set_ylim(bottom=0)


EXPERIMENT = Experiment(
    "A single residual block (section 4.4.1)",
    "Speed-up over the engine's own dense run, beside the saving in operations.",
    run,
    (draw_blocks, draw_shares),
    PAPER,
)
