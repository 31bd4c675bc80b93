"""One residual block on tiles: what is saved in operations and in time, over block size and share.

Source: section 4.4.1 of SegBlocks (Verelst and Tuytelaars, TPAMI 2022). Norms are folded into the
convolutions, for dense and tiles alike. A block is two tiles wide at full resolution, one tile at half.
Neither cutting nor composing counts, nor tables: all layers of a scale share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foveal.cost import alternate, count_macs
from foveal.geometry.plan import Plan
from foveal.kernels.abi import plain
from foveal.ops import Convolution, convolved, tuning
from foveal.tiles import split

SOURCE = "SegBlocks (TPAMI 2022), section 4.4.1, in words: its figures have no numbers"
PAPER: list[dict[str, Any]] = [
    {
        "says": "blocks above 32; half of them at full resolution in words, a quarter by the operations",
        "saved": 0.56,
        "theoretical": 2.3,
        "speedup": 1.92,
        "source": SOURCE,
    },
    {"says": "blocks below 4 are slower than dense", "block": 4, "speedup": 1.0, "source": SOURCE},
    {"says": "block 8 gains below this share", "block": 8, "share": 0.75, "speedup": 1.0, "source": SOURCE},
    {"says": "the gain is 70 % of the theoretical one at lower shares", "eta": 0.7, "source": SOURCE},
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


def residual_block(
    size: tuple[int, int] = (256, 512),
    channels: int = 64,
    blocks: Sequence[int] = BLOCKS,
    shares: Sequence[float] = SHARES,
    fixed: tuple[int, float] = (8, 0.25),
    repeat: int = 10,
) -> list[dict[str, Any]]:
    """Measure a residual block over block sizes at one share, and over shares at one block size.

    Args:
        size: Height and width of the map.
        channels: Its channels.
        blocks: Sides of a block [samples], even.
        shares: Shares of the blocks at full resolution.
        fixed: Block of the sweep over shares, and share of the sweep over blocks.
        repeat: Timed rounds of everything in turns.

    Returns:
        Rows with the keys sweep ("block" or "share"), engine, block, tile, share (as realised), dense_ms, ms,
        dense_macs, macs, theoretical (speed-up in MACs), speedup (over the engine's own dense run),
        best_speedup (over the fastest dense run), eta (speedup over theoretical).

    Raises:
        ValueError: A block cannot be halved, or a share is none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(1, channels, *size).contiguous(memory_format=torch.channels_last)
        block = ResidualBlock(channels)
    networks = {"pytorch": block, "native": _joined(block)}
    cases = [("block", side, fixed[1]) for side in blocks] + [("share", fixed[0], share) for share in shares]
    rows: list[dict[str, Any]] = []
    for sweep, side, share in cases:
        plan = random_blocks(size, side, share)
        rows += ({"sweep": sweep, "block": side} | row for row in _measure(networks, x, plan, repeat))
    return rows


def random_blocks(size: tuple[int, int], block: int, share: float, images: int = 1, seed: int = 0) -> Plan:
    """Put a share of the blocks, drawn at random, at full resolution and the others at half.

    Args:
        size: Height and width of the image [px].
        block: Side of a block [px], two tiles.
        share: Part of the blocks at full resolution, rounded to whole blocks.
        images: Number of images N; each is drawn by itself.
        seed: Of the draw.

    Raises:
        ValueError: The block cannot be halved, or the share is none.
    """
    if block < 2 or block % 2 or not 0 <= share <= 1:
        raise ValueError(
            f"block is {block} and share {share:g}; a block has an even side of at least 2, and a share is "
            "from 0 to 1"
        )
    rows, columns = (-(-side // block) for side in size)
    noise = torch.rand(images, rows * columns, generator=torch.Generator().manual_seed(seed))
    fine = noise.argsort(1).argsort(1) < round(share * rows * columns)
    levels = (~fine).to(torch.int8).view(images, rows, columns)
    return Plan.from_blocks(levels, block, block // 2, size)


def _joined(block: ResidualBlock) -> ResidualBlock:
    """Return the same block as the fused network runs it."""
    twin = ResidualBlock(block.first.in_channels, native=True)
    twin.load_state_dict(block.state_dict())
    return twin


def _measure(
    networks: dict[str, ResidualBlock], x: Tensor, plan: Plan, repeat: int
) -> Iterator[dict[str, Any]]:
    """Count and time both engines, dense and on tiles, in turns."""
    runs = dict(_runs(networks, x, plan))
    with torch.no_grad(), tuning():
        macs = {key: count_macs(run).total for key, run in runs.items()}
    ms = {key: timing.median for key, timing in alternate(runs, repeat).items()}
    fastest = min(value for key, value in ms.items() if key.endswith("dense"))
    for name in networks:
        dense, tiles = f"{name} dense", f"{name} tiles"
        theoretical, speedup = macs[dense] / macs[tiles], ms[dense] / ms[tiles]
        yield {
            "engine": name,
            "tile": plan.tile,
            "share": round(plan.share(0), 4),
            "dense_ms": round(ms[dense], 4),
            "ms": round(ms[tiles], 4),
            "dense_macs": macs[dense],
            "macs": macs[tiles],
            "theoretical": round(theoretical, 4),
            "speedup": round(speedup, 4),
            "best_speedup": round(fastest / ms[tiles], 4),
            "eta": round(speedup / theoretical, 4),
        }


def _runs(
    networks: dict[str, ResidualBlock], x: Tensor, plan: Plan
) -> Iterator[tuple[str, Callable[[], Any]]]:
    with torch.inference_mode():
        tiles = split(x, plan)
    for name, network in networks.items():
        for kind, given in (("dense", x), ("tiles", tiles)):
            yield f"{name} {kind}", partial(_run, network, given)


def _run(network: ResidualBlock, given: Any) -> Any:
    if network.native:
        return network(given)
    with plain():
        return network(given)


def draw_residual_block(rows: list[dict[str, Any]], axes: Any, sweep: str = "block") -> None:
    """Draw the speed-up over the size of a block, or over the share with `sweep="share"`."""
    found = [row for row in rows if row["sweep"] == sweep]
    for colour, engine in enumerate(dict.fromkeys(row["engine"] for row in found)):
        mine = [row for row in found if row["engine"] == engine]
        places = [row[sweep] for row in mine]
        axes.plot(places, [row["speedup"] for row in mine], "o-", color=f"C{colour}", label=engine)
        if colour == 0:
            axes.plot(places, [r["theoretical"] for r in mine], "--", color="0.4", label="in operations")
    axes.axhline(1.0, color="0.7", linewidth=1)
    if sweep == "block":
        axes.axhline(PAPER[0]["speedup"], color="C3", linestyle=":", label="paper: blocks above 32")
        axes.set_xscale("log", base=2)
        axes.set_xticks([row["block"] for row in found], [str(row["block"]) for row in found])
    else:
        axes.plot([PAPER[2]["share"]], [1.0], "x", color="C3", label="paper: block 8 gains below")
    axes.set_xlabel("side of a block" if sweep == "block" else "share of the blocks at full resolution")
    axes.set_ylabel("speed-up over dense")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
