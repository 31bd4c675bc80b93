"""A network on windows: a coarse pass where it is wanted, then the tiles that a plan has chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foveal.calibration.engine import Engine
from foveal.geometry.plan import SKIP, Plan
from foveal.methods.padding import PaddedNetwork
from foveal.methods.prediction import check_logits
from foveal.ops import classify
from foveal.program import PlannedRun, RefinedRun
from foveal.storage.labels import VOID
from foveal.tiles import run_dense, split


@dataclass(frozen=True)
class Answer:
    """What a network says about a window.

    Attributes:
        labels: Class per pixel [h, w], uint8; 255 where nothing was computed.
        logits: [1, K, h, w] at the network's stride.
        tiles: How many tiles were computed.
    """

    labels: Tensor
    logits: Tensor
    tiles: int


class WindowNetwork:
    """Runs the compiled program where there is one, else the layers one by one; both mean the same.

    Args:
        engine: What runs the network.
        tile: Side of a tile [px].
        coarse_level: Level of the coarse pass.
        logit_blend: Share of the coarse answer in that of a refined place, in logits.
    """

    def __init__(self, engine: Engine, tile: int, coarse_level: int, logit_blend: float = 0.0) -> None:
        self.engine, self.tile, self.coarse_level = engine, tile, coarse_level
        self.logit_blend = logit_blend
        self.multiple = engine.multiple
        network = engine.network
        self._layers = network.prepared if isinstance(network, PaddedNetwork) else network
        self._pad = network.pad if isinstance(network, PaddedNetwork) else None
        self._dtype = next(iter(engine.model.network.parameters()), torch.empty(0)).dtype
        for name in getattr(self._layers, "dense_modules", ()):
            run_dense(self._layers.get_submodule(name))

    @property
    def stride(self) -> int:
        """Pixels per sample of the logits at full resolution."""
        program = self.engine.program
        return program.stride if program is not None else int(self.engine.model.network.stride)

    def padded(self, image: Tensor, level: int) -> Tensor:
        """Pad an image [N, C, h, w] of a level that ends where the whole image does."""
        multiple = self.multiple << (self.coarse_level - level)
        return image if self._pad is None or multiple == 1 else self._pad(image, multiple)

    def __call__(self, image: Tensor, near: Tensor, chosen: Tensor) -> Answer:
        """Segment a window.

        Args:
            image: [1, C, h, w] in 0..1.
            near: Cells [Gh, Gw], bool, of which a coarse tile is computed first.
            chosen: Cells [Gh, Gw], bool, that are computed at full resolution, over the coarse ones if any.

        Raises:
            ValueError: The network gives NaN or infinity.
        """
        if self.engine.program is not None:
            return self._compiled(image, near, chosen)
        return self._layer_by_layer(image, near, chosen)

    def _compiled(self, image: Tensor, near: Tensor, chosen: Tensor) -> Answer:
        program = self.engine.program
        assert program is not None, "was asked"
        levels = np.where(chosen[None].numpy(), 0, SKIP).astype(np.int8)
        threads = torch.get_num_threads()
        array = image.to("cpu", torch.float32).numpy()
        if bool(near.any()):
            run = RefinedRun(levels, self.tile, self.coarse_level, self.logit_blend)
            mask = (near | chosen)[None].numpy().astype(np.uint8)
            found = program.run(array, run, mask=mask, threads=threads, logits=True)
        else:
            found = program.run(array, PlannedRun(levels, self.tile), threads=threads, logits=True)
        assert found.logits is not None, "were asked for"
        share = image.shape[2] * image.shape[3] / self.tile**2
        logits = torch.from_numpy(found.logits).permute(0, 3, 1, 2)
        return Answer(torch.from_numpy(found.labels[0]), logits, round(float(found.work[0]) * share))

    def _layer_by_layer(self, image: Tensor, near: Tensor, chosen: Tensor) -> Answer:
        size = image.shape[2], image.shape[3]
        moved = image.to(self.engine.device, self._dtype)
        fine = Plan(torch.where(chosen, 0, SKIP)[None].to(torch.int8), self.tile, size)
        memory, before, tiles = None, None, int(fine.tiles.sum())
        with torch.inference_mode():
            if bool(near.any()):
                plan = Plan.uniform(1, size, self.tile, self.coarse_level).only((near | chosen)[None])
                coarse = self._layers(split(moved, plan, None, remember=bool(chosen.any())))
                before, memory, tiles = coarse.dense(), coarse.memory(), tiles + int(plan.tiles.sum())
            logits = before
            if bool(chosen.any()):
                logits = self._layers(split(moved, fine, memory)).dense()
                if before is not None and self.logit_blend:
                    logits = logits.lerp(before, self.logit_blend)
            assert logits is not None, "something is wanted"
            check_logits(logits)
            labels = classify(logits, size)[0].cpu()
        known = near | chosen
        spread = known.repeat_interleave(self.tile, 0).repeat_interleave(self.tile, 1)
        unknown = ~spread[: size[0], : size[1]]
        return Answer(labels.masked_fill(unknown, VOID), logits.float().cpu(), tiles)
