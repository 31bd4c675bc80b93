"""Try a network on tiles: what has no rule, whether it equals its dense self, and what it would save."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foveal.compatibility.effort import Effort
from foveal.compatibility.lockstep import NotJudged, judge
from foveal.compatibility.logits import first_line, logits_of
from foveal.compatibility.plans import mixed_levels, two_levels
from foveal.compatibility.report import Comparison, MixedRun, NetworkReport
from foveal.compatibility.rounding import apart, in_double, rounding
from foveal.compatibility.survey import find_dense_modules, with_dense
from foveal.cost import count_macs
from foveal.geometry.plan import Plan, grid
from foveal.models.adapters import unsaid_images
from foveal.ops import compose_tiles, halve
from foveal.storage.channels import channels_of
from foveal.storage.given import need
from foveal.tiles import NoTileRule, WrongGeometry, split
from foveal.tiles.tensor import EXACT

BUDGET = 0.4
COARSEST = 3
"""Levels up to this one are compared."""
PADDED = 2
"""Level up to which a network that asks for multiples must run on any of them."""
MIXED = 2
"""Random plans that are tried at every size."""
LEVEL_RUNS, MIXED_RUNS = 2.7, 4.4
"""What comparing all levels of a size takes, and one random plan, in runs of the dense network there."""


def check(
    network: nn.Module,
    size: tuple[int, int] = (256, 256),
    tile: int = 32,
    channels: int | None = None,
    multiple: int = 1,
) -> NetworkReport:
    """Run a network on tiles, list what has no rule, and compare it with its dense self.

    Compared are all tiles at level 0 and at every coarser level with the dense network on the reduced image,
    and, where all of these are equal, random mixtures of levels with one dense network a level
    (`foveal.compatibility.lockstep`), at `size` and at a ragged size near it. What is not equal in single
    precision is compared in double precision too: rounding shrinks there, and a wrong rule does not. Of a
    network that takes long less is compared (`foveal.compatibility.effort`), and a note says so.

    Args:
        network: Module from images [N, C, H, W] to logits; it is left as it is.
        size: Height and width of the random images that it runs on [px].
        tile: Side of a tile [px].
        channels: Channels of the images; the network's `in_channels`, or those of its first convolution, if
            None.
        multiple: Sides of the images that it will get are multiples of it [px]. Levels are compared where
            they are so on the reduced image too; elsewhere they must run.

    Raises:
        ValueError: The network cannot even run on a plain image, or returns no tensor.
    """
    need(network, nn.Module, "network", "a torch.nn.Module from images to logits")
    channels = channels_of(network) if channels is None else channels
    with torch.no_grad():
        return _Check(copy.deepcopy(network).eval(), tile, channels, multiple).run(size)


class _Check:
    """One check of a network in evaluation mode."""

    def __init__(self, network: nn.Module, tile: int, channels: int, multiple: int) -> None:
        self.network, self.tile, self.channels, self.multiple = network, tile, channels, multiple
        self.source = torch.Generator().manual_seed(0)

    def run(self, size: tuple[int, int]) -> NetworkReport:
        image, answers = self.image(size), list[Any]()
        try:
            whole = count_macs(lambda: answers.append(self.network(image))).total
        except Exception as error:
            raise ValueError(f"the network fails on a plain image of {size[0]}x{size[1]}: {error}") from None
        _, notes = logits_of(answers.pop())
        notes += tuple(filter(None, [unsaid_images(self.network)]))
        effort = Effort(whole, size)
        declared = tuple(getattr(self.network, "dense_modules", ()))
        findings, dense = find_dense_modules(self.network, image, two_levels(size, self.tile), declared)
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
                sizes = [size, *self.ragged(tiled, size)]
                sizes = [s for n, s in enumerate(sizes) if effort.spend(s, LEVEL_RUNS, least=n < 2)]
                for each in sizes:
                    comparisons += tuple(self.levels(tiled, each))
                    if any(c.error and not c.geometry for c in comparisons):
                        break  # what fails fails at any size
                if all(c.equal or c.geometry for c in comparisons):  # what is wrong stays wrong
                    mixed = tuple(self.mixtures(tiled, sizes, comparisons, effort))
                share = self.share(image, (*declared, *dense), whole)
                macs = self.macs(tiled, image) / max(1, whole)
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
            notes=(*notes, *effort.notes),
            all_dense=all_dense,
        )

    def image(self, size: tuple[int, int], images: int = 1) -> Tensor:
        like = next(iter(self.network.parameters()), torch.empty(0))
        return torch.rand(images, self.channels, *size, generator=self.source).to(like)

    def ragged(self, tiled: nn.Module, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Sizes near another that the network takes and that are no multiple: any, and half a tile."""
        height, width = size
        half = max(1, self.tile // 2)
        candidates = [(height + 5, width + 13), (height + half, width), (height + self.tile, width)]
        if self.multiple > 1:
            return (height + self.multiple, width), (height + (self.multiple << PADDED), width)
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
        return isinstance(logits_of(tiled(split(self.image(size), two_levels(size, self.tile))))[0], Tensor)

    def refused(self, tiled: nn.Module, size: tuple[int, int]) -> bool:
        """Whether tiles of an image of a size have the wrong geometry."""
        try:
            tiled(split(self.image(size), two_levels(size, self.tile)))
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
        try:
            difference = apart(self.uniform(tiled, image, level), dense)
        except Exception as error:
            return Comparison(size, level, None, scale, first_line(error), isinstance(error, WrongGeometry))
        found = Comparison(size, level, difference, scale)
        if found.near or not math.isfinite(difference):
            return found
        return replace(found, rounding=self.rounding(tiled, image, level, dense))

    def uniform(self, tiled: nn.Module, image: Tensor, level: int) -> Tensor:
        """Return the logits of an image with all tiles at a level, as the dense network has them there."""
        plan = Plan.uniform(1, (image.shape[2], image.shape[3]), self.tile, level)
        token = EXACT.set(True)
        try:
            out = logits_of(tiled(split(image, plan)))[0]
        finally:
            EXACT.reset(token)
        return compose_tiles(out.tiles, out.layout, level)

    def rounding(self, tiled: nn.Module, image: Tensor, level: int, dense: Tensor) -> float:
        """Return the difference that rounding explains, by the same comparison in double precision."""
        try:
            network, image = in_double(self.network), image.double()
            double = logits_of(network(halve(image, level) if level else image))[0]
            tiles = self.uniform(with_dense(network, self.dense_names(tiled)), image, level)
        except Exception:  # it holds tensors of single precision where nobody looks
            return 0.0
        return rounding(dense, double, tiles)

    def failure(self, tiled: nn.Module, size: tuple[int, int], level: int) -> list[Comparison]:
        """Say why all tiles at a level do not run, for a size that the dense network has no equal for."""
        try:
            tiled(split(self.image(size), Plan.uniform(1, size, self.tile, level)))
        except Exception as error:
            return [Comparison(size, level, None, 0.0, first_line(error))]
        return []

    def mixtures(
        self,
        tiled: nn.Module,
        sizes: list[tuple[int, int]],
        comparisons: tuple[Comparison, ...],
        effort: Effort,
    ) -> list[MixedRun]:
        """Run random plans over two images of every size, and one image by itself, and judge its values.

        Levels are mixed that are right alone. Of a square image more columns are taken, if that is possible,
        so that rows and columns differ. Small images come first, as long as there is effort left.
        """
        tops, found = {}, []
        for size in sizes:
            here = [c for c in comparisons if c.size == size]
            if here and not here[0].error:
                top = next((c.level for c in here if c.error or not c.equal), here[-1].level + 1) - 1
                tops[self.oblong(tiled, size)] = top
        for number in range(MIXED):
            for size in sorted(tops, key=math.prod):
                if effort.spend(size, MIXED_RUNS):
                    plan = mixed_levels(size, self.tile, min(max(1, tops[size]), number + 1), self.source)
                    found.append(self.mixture(tiled, plan, number, tops[size] > 0))
        return sorted(found, key=lambda run: list(tops).index(run.size))

    def oblong(self, tiled: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
        """Return a size that is no square, if the network takes one."""
        if size[0] != size[1]:
            return size
        step = math.lcm(self.tile, self.multiple)
        for shift in range(PADDED + 1) if self.multiple > 1 else (PADDED,):
            wide = (size[0], size[1] + (step << shift))
            if self.takes_reduced(wide) and not self.refused(tiled, wide):
                return wide
        return size

    def takes_reduced(self, size: tuple[int, int]) -> bool:
        """Whether the network takes an image of a size at coarser levels; it may have sides of its own."""
        try:
            for level in range(PADDED, 0, -1):
                self.network(halve(self.image(size), level))
        except Exception:
            return False
        return True

    def mixture(self, tiled: nn.Module, plan: Plan, number: int, judged: bool) -> MixedRun:
        """Run one plan of two images; compare one of them with itself alone, and with what its plan means."""
        size, image = plan.size, self.image(plan.size, 2)
        part, own = image[number : number + 1], Plan(plan.levels[number : number + 1], self.tile, plan.size)
        try:
            out = logits_of(tiled(split(image, plan)))[0].dense()
            alone = logits_of(tiled(split(part, own)))[0].dense()
        except Exception as error:
            return MixedRun(size, False, None, 0.0, first_line(error))
        ours, scale = out[number : number + 1], float(out.abs().max())
        run = MixedRun(size, bool(out.isfinite().all()), apart(ours, alone), scale)
        if not judged or len({*own.levels.flatten().tolist()}) < 2:
            return replace(run, unjudged="the network itself takes no reduced image")
        try:
            right = judge(self.network, self.dense_names(tiled), self.reduced(part), own)
        except NotJudged as error:
            return replace(run, unjudged=str(error))
        run = replace(run, difference=apart(ours, right), scale=max(scale, float(right.abs().max())))
        return run if run.sound else replace(run, rounding=self.mixed_rounding(tiled, part, own, right))

    def mixed_rounding(self, tiled: nn.Module, image: Tensor, plan: Plan, right: Tensor) -> float:
        """Return the difference that rounding explains under a plan of mixed levels."""
        try:
            network, names, image = in_double(self.network), self.dense_names(tiled), image.double()
            double = judge(network, names, self.reduced(image), plan)
            tiles = logits_of(with_dense(network, names)(split(image, plan)))[0].dense()
        except Exception:  # it holds tensors of single precision where nobody looks
            return 0.0
        return rounding(right, double, tiles)

    @staticmethod
    def reduced(image: Tensor) -> dict[int, Tensor]:
        """Reduce an image to every level."""
        return {level: halve(image, level) if level else image for level in range(COARSEST + 1)}

    @staticmethod
    def dense_names(tiled: nn.Module) -> tuple[str, ...]:
        """Names of the modules that run dense."""
        return tuple(
            name for name, module in tiled.named_modules() if isinstance(vars(module).get("forward"), partial)
        )

    def share(self, image: Tensor, names: tuple[str, ...], whole: int) -> float:
        """Share of the dense network's MACs that some modules take."""
        if not names:
            return 0.0
        calls: list[tuple[nn.Module, Any, Any]] = []
        handles = [
            self.network.get_submodule(name).register_forward_pre_hook(
                lambda module, args, kwargs: calls.append((module, args, kwargs)), with_kwargs=True
            )
            for name in names
        ]
        self.network(image)
        for handle in handles:
            handle.remove()
        parts = count_macs(lambda: [module(*args, **kwargs) for module, args, kwargs in calls]).total
        return parts / max(1, whole)

    def macs(self, tiled: nn.Module, image: Tensor) -> int:
        """MACs of a random plan of the budget."""
        size = image.shape[2], image.shape[3]
        scores = torch.rand(1, *grid(size, self.tile), generator=self.source)
        plan = Plan.from_scores(scores, self.tile, size, BUDGET, 1)
        return count_macs(lambda: logits_of(tiled(split(image, plan)))[0].dense()).total
