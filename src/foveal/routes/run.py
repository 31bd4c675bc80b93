"""A lattice that runs cell by cell: on the route of an image, or under soft gates for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foveal.models.lattice import WAYS, LatticeShape, Weights, doubled, joined, scaled
from foveal.routes.choice import Ask, CellWeights, Choice
from foveal.routes.costs import LatticeCosts
from foveal.routes.route import CLOSED, Route
from foveal.routes.router import Asking, Router

STRENGTH = 0.01
"""Share of the weights of a step in the usual ones, as of a norm's statistics in a long training."""


class LatticeParts:
    """The parts of a lattice network by their names; they stay those of the network.

    Args:
        network: A lattice, or what `foveal.fuse` made of one.

    Raises:
        ValueError: It is no lattice.
    """

    def __init__(self, network: Any) -> None:
        shape = getattr(network, "lattice", None)
        if not isinstance(shape, LatticeShape):
            raise ValueError(
                f"routing needs a lattice network, such as lattice8; {type(network).__name__} has no lattice "
                "of cells and paths to choose from"
            )
        self.network, self.shape = network, shape

    @property
    def usual(self) -> Weights:
        """Usual weights of the network's paths."""
        found: Weights = self.network.path_weights
        return found

    def costs(self, size: tuple[int, int], small_gates: bool = True) -> LatticeCosts:
        """Return what its parts cost on an image of `size` [px]."""
        return LatticeCosts(self.shape, size, int(self.network.in_channels), small_gates)

    def start(self, image: Tensor) -> Tensor:
        """Return the map of the initial cell, of images [N, C, H, W] in 0..1."""
        x: Tensor = self._part("encoder.stem")((image - self.network.mean) / self.network.std)
        return x

    def onward(
        self,
        layer: int,
        maps: Mapping[int, Tensor],
        weights: Mapping[int, Sequence[Any]],
        sides: Sequence[tuple[int, int]],
    ) -> dict[int, Tensor]:
        """Run a layer: cells whose paths are all closed hand on what they are given, and compute nothing.

        Args:
            layer: Its number.
            maps: What has arrived at it, by scale.
            weights: Weights of the ways out of these cells (up, keep, down); 0 is closed.
            sides: Height and width of the maps of every scale.

        Returns:
            What arrives at the next layer, or at the decoder.
        """
        arriving: dict[int, list[Tensor]] = {}
        for scale in sorted(maps):
            up, keep, down = weights[scale]
            cell = f"encoder.layers.{layer}.{scale}"
            if not (_is_open(up) or _is_open(keep) or _is_open(down)):
                arriving.setdefault(scale, []).append(maps[scale])
                continue
            out = self._part(f"{cell}.body")(maps[scale])
            if _is_open(down):
                found = scaled(self._part(f"{cell}.down")(out), down)
                arriving.setdefault(scale + 1, []).append(found)
            if _is_open(keep):
                arriving.setdefault(scale, []).append(scaled(out, keep))
            if _is_open(up):
                finer = doubled(self._part(f"{cell}.up")(out), *sides[scale - 1])
                arriving.setdefault(scale - 1, []).append(scaled(finer, up))
        return {scale: joined(parts) for scale, parts in arriving.items()}

    def decode(self, maps: Mapping[int, Tensor], sides: Sequence[tuple[int, int]]) -> Tensor:
        """Return logits [N, K, h, w] of what arrives at the decoder; scales that do not count as zero."""
        x: Tensor | None = None
        for scale in reversed(range(max(maps) + 1)):
            given = [part for part in (x, maps.get(scale)) if part is not None]
            x = self._part(f"head.units.{scale}")(joined(given))
            if scale:
                x = doubled(x, *sides[scale - 1])
        logits: Tensor = self._part("head.classify")(x)
        return logits

    def run(self, image: Tensor, choice: Choice, asking: Asking, costs: LatticeCosts) -> tuple[Tensor, Route]:
        """Run on one image [1, C, H, W] what is chosen for it.

        Args:
            image: The image.
            choice: Chooses paths.
            asking: Weighs the paths out of a cell, if the choice asks.
            costs: Of the lattice on the image.

        Returns:
            Logits [1, K, h, w], and the route that was taken.
        """
        maps = {0: self.start(image)}
        taken: dict[tuple[int, int], CellWeights] = {}
        for layer in range(self.shape.layers + 1):
            weights = choice.layer(layer, sorted(maps), self._ask(layer, maps, asking))
            taken |= {(layer, scale): cell for scale, cell in weights.items()}
            maps = self.onward(layer, maps, weights, costs.sides)
        return self.decode(maps, costs.sides), Route.of(self.shape.layers, taken)

    def _ask(self, layer: int, maps: Mapping[int, Tensor], asking: Asking) -> Ask:
        def ask(scale: int) -> CellWeights:
            found = asking(layer, scale, maps[scale])[0].tolist()
            by_way = dict(zip(self.shape.ways(layer, scale), found, strict=True))
            return tuple(by_way.get(way, 0.0) for way in WAYS)

        return ask

    def _part(self, name: str) -> nn.Module:
        part: nn.Module = self.network.get_submodule(name)
        return part


def soft(
    parts: LatticeParts, router: Router, image: Tensor, closed: float = 0.0
) -> tuple[Tensor, dict[tuple[int, int], Tensor]]:
    """Run all cells for all images of a batch, every path weighed by its gate, for training.

    What a closed path would add is zero, and a cell whose paths are all closed hands on what it is given.

    Args:
        parts: The lattice.
        router: Its gates.
        image: Images [N, C, H, W] in 0..1.
        closed: Share of the paths of every layer that are closed, an image's weakest, so that the lattice
            learns to do without them.

    Returns:
        Logits [N, K, h, w]; and by layer and scale the weights [N, paths] of the paths out of a cell, as the
        gates say.
    """
    shape, sides = parts.shape, parts.costs((image.shape[2], image.shape[3])).sides
    maps, found = {0: parts.start(image)}, {}
    for layer in range(shape.layers + 1):
        given, weights, alphas = dict(maps), {}, {}
        for scale, x in given.items():
            alpha = router(layer, scale, x)
            alphas[scale] = alpha.to(torch.promote_types(alpha.dtype, torch.float32))
            found[layer, scale] = alphas[scale]
        alphas = _without_weakest(alphas, closed)
        for scale, x in given.items():
            columns = dict(zip(shape.ways(layer, scale), alphas[scale].unbind(1), strict=True))
            weights[scale] = [
                columns[way].view(-1, 1, 1, 1).to(x.dtype) if way in columns else 0.0 for way in WAYS
            ]
        maps = parts.onward(layer, given, weights, sides)
        for scale, x in given.items():
            handed = (alphas[scale].detach().sum(1) < CLOSED).view(-1, 1, 1, 1)
            if bool(handed.any()):
                maps[scale] = maps[scale] + x * handed.to(x.dtype)
    return parts.decode(maps, sides), found


def _without_weakest(alphas: Mapping[int, Tensor], share: float) -> dict[int, Tensor]:
    """Set a share of the weights of a layer [N, paths] to zero, the smallest of every image."""
    if not share:
        return dict(alphas)
    together = torch.cat(list(alphas.values()), 1)
    count = int(share * together.shape[1])
    order = together.detach().argsort(1)[:, :count]
    kept = together.scatter(1, order, 0.0)
    return dict(zip(alphas, kept.split([alpha.shape[1] for alpha in alphas.values()], 1), strict=True))


def expected_share(costs: LatticeCosts, weights: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """Return the expected MACs of cells and transforms, in the mean over images, as a share of all of them.

    Source: the budget constraint of Li et al., CVPR 2020: a cell costs the share of its largest weight, a
    transform that of its weight.
    """
    total = torch.zeros(())
    for (layer, scale), alpha in weights.items():
        ways = costs.shape.ways(layer, scale)
        price = alpha.new_tensor([float(costs.way(way, scale)) for way in ways])
        total = total.to(alpha) + alpha.amax(1) * float(costs.body(scale)) + alpha @ price
    return (total / costs.routed).mean()


def usual_weights(before: Tensor, weights: Mapping[tuple[int, int], Tensor], shape: LatticeShape) -> Tensor:
    """Move the usual weights of paths [layers + 1, scales, 4] towards those of a batch.

    The last column is how often a cell hands on what it is given.
    """
    now = before.clone()
    for (layer, scale), alpha in weights.items():
        alpha = alpha.detach().to(before)
        means = dict(zip(shape.ways(layer, scale), alpha.mean(0), strict=True))
        for k, way in enumerate(WAYS):
            now[layer, scale, k] = means.get(way, 0.0)
        now[layer, scale, -1] = (alpha.sum(1) < CLOSED).to(before).mean()
    return torch.lerp(before, now, STRENGTH)


def _is_open(weight: Any) -> bool:
    return isinstance(weight, Tensor) or weight >= CLOSED
