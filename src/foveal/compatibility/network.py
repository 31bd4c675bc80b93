"""Try a network on tiles: what has no rule, whether it equals its dense self, and what it would save."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foveal.compatibility.lockstep import NotJudged, judge
from foveal.compatibility.logits import first_line, logits_of
from foveal.compatibility.report import Comparison, MixedRun, NetworkReport
from foveal.compatibility.survey import find_dense_modules, with_dense
from foveal.cost import count_macs
from foveal.geometry.plan import Plan, grid
from foveal.ops import compose_tiles, halve
from foveal.tiles import NoTileRule, WrongGeometry, split
from foveal.tiles.tensor import EXACT

BUDGET = 0.4
COARSEST = 3
"""Levels up to this one are compared."""
PADDED = 2
"""Level up to which a network that asks for multiples must run on any of them."""
MIXED = 2
"""Random plans that are tried at every size."""


def check(
    network: nn.Module,
    size: tuple[int, int] = (256, 256),
    tile: int = 32,
    channels: int = 3,
    multiple: int = 1,
) -> NetworkReport:
    """Run a network on tiles, list what has no rule, and compare it with its dense self.

    Compared are all tiles at level 0 and at every coarser level with the dense network on the reduced image,
    and, where all of these are equal, random mixtures of levels with one dense network a level
    (`foveal.compatibility.lockstep`), at `size` and at a ragged size near it.

    Args:
        network: Module from images [N, C, H, W] to logits; it is left as it is.
        size: Height and width of the random images that it runs on [px].
        tile: Side of a tile [px].
        channels: Channels of the images.
        multiple: Sides of the images that it will get are multiples of it [px]. Levels are compared where
            they are so on the reduced image too; elsewhere they must run.

    Raises:
        ValueError: The network cannot even run on a plain image, or returns no tensor.
    """
    with torch.no_grad():
        return _Check(copy.deepcopy(network).eval(), tile, channels, multiple).run(size)


class _Check:
    """One check of a network in evaluation mode."""

    def __init__(self, network: nn.Module, tile: int, channels: int, multiple: int) -> None:
        self.network, self.tile, self.channels, self.multiple = network, tile, channels, multiple
        self.source = torch.Generator().manual_seed(0)

    def run(self, size: tuple[int, int]) -> NetworkReport:
        image = self.image(size)
        try:
            answer = self.network(image)
        except Exception as error:
            raise ValueError(f"the network fails on a plain image of {size[0]}x{size[1]}: {error}") from None
        _, notes = logits_of(answer)
        declared = tuple(getattr(self.network, "dense_modules", ()))
        findings, dense = find_dense_modules(self.network, image, self.two_levels(size), declared)
        comparisons: tuple[Comparison, ...] = ()
        mixed: tuple[MixedRun, ...] = ()
        share = macs = None
        all_dense = False
        if dense is not None:
            tiled = with_dense(self.network, (*declared, *dense))
            if self.runs_dense(tiled, size):
                names = (*declared, *dense)
                notes += (f"with dense_modules={names} all before the logits runs dense: nothing is saved",)
                dense, all_dense = None, True
            else:
                sizes = (size, *self.ragged(tiled, size))
                comparisons = tuple(c for each in sizes for c in self.levels(tiled, each))
                right = all(c.equal or c.geometry for c in comparisons)
                for each in sizes if right else ():  # they take the longest, and what is wrong stays wrong
                    mixed += tuple(self.mixtures(tiled, each, comparisons))
                share = self.share(image, (*declared, *dense))
                macs = self.macs(tiled, image)
        return NetworkReport(
            network=type(self.network).__name__,
            tile=self.tile,
            findings=findings,
            declared=declared,
            dense_modules=dense,
            comparisons=comparisons,
            mixed=mixed,
            dense_share=share,
            macs=macs,
            budget=BUDGET,
            notes=notes,
            all_dense=all_dense,
        )

    def image(self, size: tuple[int, int], images: int = 1) -> Tensor:
        like = next(iter(self.network.parameters()), torch.empty(0))
        return torch.rand(images, self.channels, *size, generator=self.source).to(like)

    def two_levels(self, size: tuple[int, int]) -> Plan:
        """Everything at level 0, one corner at level 1 if there is room."""
        rows, columns = grid(size, self.tile)
        levels = torch.zeros(1, rows, columns, dtype=torch.int8)
        if rows * columns > 4:
            levels[:, :2, :2] = 1
        return Plan(levels, self.tile, size)

    def ragged(self, tiled: nn.Module, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Sizes near another that the network takes and that are no multiple: any, and half a tile."""
        height, width = size
        half = max(1, self.tile // 2)
        candidates = [(height + 5, width + 13), (height + half, width), (height + self.tile, width)]
        if self.multiple > 1:
            candidates = [(height + (self.multiple << PADDED), width)]
            return (*candidates, (height + self.multiple, width))
        found: list[tuple[int, int]] = []
        for each in candidates:
            try:
                self.network(self.image(each))
            except Exception:
                continue
            found.append(each)
            if not self.refused(tiled, each):
                break
        return tuple(found)

    def runs_dense(self, tiled: nn.Module, size: tuple[int, int]) -> bool:
        """Whether the logits are a plain tensor, so that nothing is left to compose."""
        return isinstance(logits_of(tiled(split(self.image(size), self.two_levels(size))))[0], Tensor)

    def refused(self, tiled: nn.Module, size: tuple[int, int]) -> bool:
        """Whether tiles of an image of a size have the wrong geometry."""
        try:
            tiled(split(self.image(size), self.two_levels(size)))
        except Exception as error:  # whatever else fails is found and told when the levels are compared
            return isinstance(error, NoTileRule)
        return False

    def levels(self, tiled: nn.Module, size: tuple[int, int]) -> list[Comparison]:
        """Compare every level alone with the dense network on the reduced image, until one cannot run."""
        found: list[Comparison] = []
        for level in range(COARSEST + 1):
            if (level and self.tile << level > max(size)) or (found and found[-1].error):
                break
            if self.multiple == 1 or all(side % (self.multiple << level) == 0 for side in size):
                found.append(self.level(tiled, size, level))
            elif level <= PADDED:
                found += self.failure(tiled, size, level)
        return found

    def level(self, tiled: nn.Module, size: tuple[int, int], level: int) -> Comparison:
        image = self.image(size)
        small = halve(image, level) if level else image
        try:
            dense = logits_of(self.network(small))[0]
        except Exception as error:
            sides = f"{small.shape[2]}x{small.shape[3]}"
            what = f"the network itself refuses the image reduced to {sides}: {first_line(error)}"
            return Comparison(size, level, None, 0.0, f"{what}; give images of larger multiples", True)
        scale = float(dense.abs().max())
        token = EXACT.set(True)
        try:
            out = logits_of(tiled(split(image, Plan.uniform(1, size, self.tile, level))))[0]
            map_ = compose_tiles(out.tiles, out.layout, level)
            difference = float((map_ - dense).abs().max()) if map_.shape == dense.shape else float("inf")
        except Exception as error:
            return Comparison(size, level, None, scale, first_line(error), isinstance(error, WrongGeometry))
        finally:
            EXACT.reset(token)
        return Comparison(size, level, difference, scale)

    def failure(self, tiled: nn.Module, size: tuple[int, int], level: int) -> list[Comparison]:
        """Say why all tiles at a level do not run, for a size that the dense network has no equal for."""
        try:
            tiled(split(self.image(size), Plan.uniform(1, size, self.tile, level)))
        except Exception as error:
            return [Comparison(size, level, None, 0.0, first_line(error))]
        return []

    def mixtures(
        self, tiled: nn.Module, size: tuple[int, int], comparisons: tuple[Comparison, ...]
    ) -> list[MixedRun]:
        """Run random plans over two images, and each image by itself, and judge their values.

        Levels are mixed that are right alone. Of a square image more columns are taken, if that is possible,
        so that rows and columns differ.
        """
        here = [c for c in comparisons if c.size == size]
        if not here or here[0].error:
            return []
        top = next((c.level for c in here if c.error or not c.equal), here[-1].level + 1) - 1
        found = []
        for number in range(MIXED):
            plan = self.mixed_plan(self.oblong(tiled, size), min(max(1, top), number + 1))
            found.append(self.mixture(tiled, plan, number if top else None))
        return found

    def oblong(self, tiled: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
        """Return a size that is no square, if the network takes one."""
        if size[0] != size[1]:
            return size
        wide = (size[0], size[1] + (math.lcm(self.tile, self.multiple) << PADDED))
        try:
            for level in range(PADDED + 1):
                self.network(halve(self.image(wide), level))
        except Exception:  # it has sides of its own
            return size
        return size if self.refused(tiled, wide) else wide

    def mixed_plan(self, size: tuple[int, int], top: int) -> Plan:
        """Split tiles of two images at random, from a level down; every image gets two levels at least."""
        rows, columns = grid(size, self.tile)
        levels = torch.full((2, rows, columns), top, dtype=torch.int8)
        for level in range(top, 0, -1):
            blocks = torch.rand(2, -(-rows >> level), -(-columns >> level), generator=self.source) < 0.5
            blocks[:, 0, 0], blocks[:, -1, -1] = level == top, level != top
            spread = blocks.repeat_interleave(1 << level, 1).repeat_interleave(1 << level, 2)
            levels[(levels == level) & spread[:, :rows, :columns]] = level - 1
        return Plan(levels, self.tile, size)

    def mixture(self, tiled: nn.Module, plan: Plan, judged: int | None) -> MixedRun:
        """Run one plan; compare the values of one of its images."""
        size, image = plan.size, self.image(plan.size, 2)
        single = [Plan(plan.levels[n : n + 1], self.tile, size) for n in range(2)]
        try:
            out = logits_of(tiled(split(image, plan)))[0].dense()
            alone = torch.cat(
                [logits_of(tiled(split(image[n : n + 1], single[n])))[0].dense() for n in range(2)]
            )
        except Exception as error:
            return MixedRun(size, False, None, 0.0, first_line(error))
        influence, scale = float((out - alone).abs().max()), float(out.abs().max())
        run = MixedRun(size, bool(out.isfinite().all()), influence, scale)
        if judged is None or len({*plan.levels[judged].flatten().tolist()}) < 2:
            return replace(run, unjudged="the network itself takes no reduced image")
        part = image[judged : judged + 1]
        images = {level: halve(part, level) if level else part for level in range(COARSEST + 1)}
        try:
            right = judge(self.network, self.dense_names(tiled), images, single[judged])
        except NotJudged as error:
            return replace(run, unjudged=str(error))
        ours = out[judged : judged + 1]
        return replace(
            run,
            difference=float((ours - right).abs().max()) if ours.shape == right.shape else float("inf"),
            scale=max(scale, float(right.abs().max())),
        )

    @staticmethod
    def dense_names(tiled: nn.Module) -> tuple[str, ...]:
        """Names of the modules that run dense."""
        return tuple(
            name for name, module in tiled.named_modules() if isinstance(vars(module).get("forward"), partial)
        )

    def share(self, image: Tensor, names: tuple[str, ...]) -> float:
        """Share of the dense network's MACs that some modules take."""
        calls: list[tuple[nn.Module, Any, Any]] = []
        handles = [
            self.network.get_submodule(name).register_forward_pre_hook(
                lambda module, args, kwargs: calls.append((module, args, kwargs)), with_kwargs=True
            )
            for name in names
        ]
        whole = count_macs(lambda: self.network(image)).total
        for handle in handles:
            handle.remove()
        parts = count_macs(lambda: [module(*args, **kwargs) for module, args, kwargs in calls]).total
        return parts / max(1, whole)

    def macs(self, tiled: nn.Module, image: Tensor) -> float:
        """MACs of a random plan of the budget, as a share of the dense network's."""
        size = image.shape[2], image.shape[3]
        scores = torch.rand(1, *grid(size, self.tile), generator=self.source)
        plan = Plan.from_scores(scores, self.tile, size, BUDGET, 1)
        whole = count_macs(lambda: self.network(image)).total
        return count_macs(lambda: logits_of(tiled(split(image, plan)))[0].dense()).total / max(1, whole)
