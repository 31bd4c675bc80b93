"""Routes are values, their MACs those that are counted, and the well-known networks those networks."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from conformance import assert_close
from foveal.cost import count_macs
from foveal.fusion import fuse
from foveal.models.lattice import SCALES, WAYS, LatticeNetwork, LatticeShape
from foveal.models.network import with_channels
from foveal.routes import (
    FIXED,
    Chance,
    FixedChoice,
    LatticeCosts,
    LatticeParts,
    Route,
    Router,
    fixed_route,
    usual_route,
)
from samples import error_of, lattice, nano, shaken
from strategies import sources

LAYERS = 5


def random_route(source: Random, layers: int = LAYERS, closed: float = 0.4) -> Route:
    shape = LatticeShape(layers, 2, 1)
    return Route.of(
        layers,
        {
            cell: [
                source.uniform(0.1, 1) if way in shape.ways(*cell) and source.random() > closed else 0.0
                for way in WAYS
            ]
            for cell in shape.cells
        },
    )


@torch.no_grad()
def taken(network: nn.Module, route: Route, image: Tensor) -> Tensor:
    parts = LatticeParts(network)
    costs = parts.costs((image.shape[2], image.shape[3]))
    none = Chance(parts.shape, parts.usual, 0)
    logits, found = parts.run(image, FixedChoice(route), none, costs)
    assert found.computed == route.computed
    return logits


# Values


@given(source=sources())
def test_a_route_is_its_json(source: Random) -> None:
    route = random_route(source, source.randint(3, 12))
    assert Route.from_json(json.loads(json.dumps(route.as_json()))) == route


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": 3}, 'a route is {"weights"'),
        ([], 'a route is {"weights"'),
        ({"weights": [[[0, 0, 0]] * 4] * 2}, "a route has 4 to 65 layers"),
        ({"weights": [[[0, 0, 0]] * 3] * 5}, "needs 4 scales of 3 weights"),
        ({"weights": [[[1, 0, 0]] + [[0, 0, 0]] * 3] * 5}, "up of layer 0 at stride 4 is 1, and there is no"),
        ({"weights": [[[0, -1, 0]] + [[0, 0, 0]] * 3] * 5}, "is -1; give a number of at least 0"),
        ({"weights": [[[0, "a", 0]] + [[0, 0, 0]] * 3] * 5}, "is 'a'; give a number"),
        ({"weights": [[[0, float("nan"), 0]] + [[0, 0, 0]] * 3] * 5}, "is nan; give a number"),
    ],
)
def test_what_is_no_route_is_refused(given: object, message: str) -> None:
    assert message in error_of(lambda: Route.from_json(given))


def test_cells_that_nothing_arrives_at_compute_nothing() -> None:
    """The path goes down at once: whatever finer cells would open, nothing comes to them."""
    cells = {(0, 0): [0, 0, 1.0], (1, 1): [0, 1.0, 0], (1, 0): [0, 1.0, 1.0], (3, 2): [1.0, 0, 0]}
    route = Route.of(4, cells)
    assert route.computed == ((0, 0), (1, 1))
    assert route.reached == ((0, 0), (1, 1), (2, 1), (3, 1), (4, 1))
    assert route.ends == (1,) and route.open_paths == 2


# MACs


@settings(max_examples=25, deadline=None)
@given(source=sources())
def test_macs_are_those_that_are_counted(source: Random) -> None:
    size = source.randint(1, 120), source.randint(1, 120)
    network, route, image = lattice(), random_route(source), torch.rand(1, 3, *size)
    costs = LatticeCosts(network.lattice, size)
    assert count_macs(lambda: taken(network, route, image)).total == costs.of(route)
    assert count_macs(lambda: network(image)).total == costs.dense == costs.of(Route.all_open(LAYERS))
    assert costs.least <= costs.of(route) <= costs.dense


@pytest.mark.parametrize("small", [0, 1])
@pytest.mark.parametrize("size", [(64, 96), (33, 47), (1, 1)])
def test_macs_of_gates_are_those_that_are_counted(small: int, size: tuple[int, int]) -> None:
    shape = LatticeShape(4, 8, 3)
    costs, router = LatticeCosts(shape, size, small_gates=bool(small)), Router(4, 8, small).eval()
    for layer, scale in shape.cells:
        x = torch.rand(1, shape.channels(scale), *costs.sides[scale])
        assert count_macs(lambda at=(layer, scale), x=x: router(*at, x)).total == costs.gate(layer, scale)


def test_joined_layers_take_the_same_macs_and_give_the_same_answer() -> None:
    network, image = lattice(), torch.rand(1, 3, 75, 101)
    joined = fuse(network)
    for seed in range(4):
        route = random_route(Random(seed))
        assert_close(taken(joined, route, image), taken(network, route, image), 1e-4)
        macs = count_macs(lambda r=route: taken(joined, r, image)).total
        assert macs == LatticeParts(joined).costs((75, 101)).of(route)


def test_images_of_other_channels_cost_what_their_stem_does() -> None:
    network = with_channels(LatticeNetwork(3, 8, 4), 5).eval()
    costs = LatticeParts(network).costs((40, 56))
    assert count_macs(lambda: network(torch.rand(1, 5, 40, 56))).total == costs.dense


# All open, and fixed


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (100, 70), (1, 97), (5, 3)])
def test_all_open_is_the_dense_lattice_exactly(size: tuple[int, int]) -> None:
    network, image = lattice(), torch.rand(1, 3, *size)
    with torch.no_grad():
        assert torch.equal(taken(network, Route.all_open(LAYERS), image), network(image))


def test_usual_weights_are_taken_all_open_too() -> None:
    network, image = lattice(), torch.rand(1, 3, 70, 90)
    weights = torch.rand_like(network.encoder.usual) * network.encoder.usual  # type: ignore[arg-type, operator]
    network.encoder.set_weights(weights)  # type: ignore[operator]
    with torch.no_grad():
        route = Route.all_open(LAYERS).with_weights(network.path_weights)
        assert_close(taken(network, route, image), network(image))


class Plain(nn.Module):
    """A network as it would be written without a lattice: blocks, and what leads from one to another.

    Every block is a module of the lattice, so the weights are the same; what runs is written here.
    """

    def __init__(self, network: LatticeNetwork) -> None:
        super().__init__()
        self.encoder, self.head = network.encoder, network.head
        self.register_buffer("mean", network.mean)
        self.register_buffer("std", network.std)

    def stem(self, image: Tensor) -> Tensor:
        return self.encoder.stem((image - self.mean) / self.std)

    def block(self, layer: int, scale: int, x: Tensor) -> Tensor:
        return self.encoder.layers[layer][scale].body(x)

    def down(self, layer: int, scale: int, x: Tensor) -> Tensor:
        return self.encoder.layers[layer][scale].down(self.block(layer, scale, x))

    def up(self, layer: int, scale: int, x: Tensor, like: Tensor) -> Tensor:
        return self.twice(self.encoder.layers[layer][scale].up(self.block(layer, scale, x)), like)

    def twice(self, x: Tensor, like: Tensor) -> Tensor:
        large = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return large[:, :, : like.shape[2], : like.shape[3]]

    def finish(self, image: Tensor, scale: int, x: Tensor) -> Tensor:
        """Decode a map of one scale, nothing beside it."""
        sides = [tuple(-(-n // (4 << s)) for n in image.shape[2:]) for s in range(SCALES)]
        for k in range(scale, 0, -1):
            x = F.interpolate(self.head.units[k](x), scale_factor=2, mode="bilinear", align_corners=False)
            x = x[:, :, : sides[k - 1][0], : sides[k - 1][1]]
        return self.head.classify(self.head.units[0](x))


class PlainFCN(Plain):
    """FCN-32s on 8 layers: three reductions, then blocks at stride 32."""

    def forward(self, image: Tensor) -> Tensor:
        x = self.down(2, 2, self.down(1, 1, self.down(0, 0, self.stem(image))))
        for layer in range(3, 9):
            x = self.block(layer, 3, x)
        return self.finish(image, 3, x)


class PlainDeepLab(Plain):
    """DeepLabV3 on 8 layers: two reductions, then blocks at stride 16."""

    def forward(self, image: Tensor) -> Tensor:
        x = self.down(1, 1, self.down(0, 0, self.stem(image)))
        for layer in range(2, 9):
            x = self.block(layer, 2, x)
        return self.finish(image, 2, x)


class PlainAutoDeepLab(Plain):
    """Auto-DeepLab's scales on 8 layers: 4, 4, 4, 8, 8, 16, 32, 32, 16."""

    def forward(self, image: Tensor) -> Tensor:
        x = self.block(1, 0, self.block(0, 0, self.stem(image)))
        x = self.down(4, 1, self.block(3, 1, self.down(2, 0, x)))
        sixteen = x
        x = self.block(6, 3, self.down(5, 2, x))
        return self.finish(image, 2, self.block(8, 2, self.up(7, 3, x, sixteen)))


class PlainUNet(Plain):
    """A U-Net on 8 layers: what a scale has before it is reduced is added when it comes back."""

    def forward(self, image: Tensor) -> Tensor:
        four = self.block(0, 0, self.stem(image))
        eight = self.block(1, 1, self.encoder.layers[0][0].down(four))
        sixteen = self.block(2, 2, self.encoder.layers[1][1].down(eight))
        x = self.encoder.layers[2][2].down(sixteen)
        x = self.block(4, 3, self.block(3, 3, x))
        x = self.up(5, 3, x, sixteen)
        x = self.up(6, 2, sixteen + x, eight)
        x = self.up(7, 1, eight + x, four)
        return self.finish(image, 0, self.block(8, 0, four + x))


class PlainHRNet(Plain):
    """HRNetV2 on 8 layers: four branches, each from where it can begin, that exchange at layers 3 and 7."""

    def forward(self, image: Tensor) -> Tensor:
        branches = [self.stem(image)]
        for layer in range(9):
            outs = [self.block(layer, scale, x) for scale, x in enumerate(branches)]
            cells = self.encoder.layers[layer]
            after = list(outs)
            if layer in (3, 7):
                for scale, out in enumerate(outs):
                    if scale:
                        after[scale - 1] = after[scale - 1] + self.twice(
                            cells[scale].up(out), outs[scale - 1]
                        )
                    if scale < 3:
                        after[scale + 1] = cells[scale].down(out) + after[scale + 1]
            elif layer < 3:
                after.append(cells[len(outs) - 1].down(outs[-1]))
            branches = after
        x = self.head.units[3](branches[3])
        for scale in (2, 1, 0):
            x = self.head.units[scale](self.twice(x, branches[scale]) + branches[scale])
        return self.head.classify(x)


PLAIN = {
    "fcn32s": PlainFCN,
    "deeplabv3": PlainDeepLab,
    "auto_deeplab": PlainAutoDeepLab,
    "unet": PlainUNet,
    "hrnetv2": PlainHRNet,
}


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_route_is_that_network_built_plainly(name: str, size: tuple[int, int]) -> None:
    network = shaken(LatticeNetwork(8, 16, 5)).eval()
    image, plain, route = torch.rand(1, 3, *size), PLAIN[name](network).eval(), fixed_route(name, 8)
    with torch.no_grad():
        expected = plain(image)
    assert_close(taken(network, route, image), expected)
    assert count_macs(lambda: plain(image)).total == LatticeCosts(network.lattice, size).of(route)


@pytest.mark.parametrize("layers", [3, 4, 5, 8, 11, 16, 33])
@pytest.mark.parametrize("name", FIXED)
def test_fixed_routes_are_in_lattices_of_any_depth(name: str, layers: int) -> None:
    route = fixed_route(name, layers)
    assert {layer for layer, _ in route.computed} == set(range(layers + 1))
    costs = LatticeCosts(LatticeShape(layers, 64, 19), (1024, 2048))
    assert costs.work(route) < 1
    assert (len(route.ends) == SCALES) == (name == "hrnetv2")


def test_a_route_that_nobody_knows_is_refused() -> None:
    assert "no fixed route named 'unett'; did you mean 'unet'?" in error_of(lambda: fixed_route("unett", 8))


def test_the_usual_route_keeps_the_widest_paths_that_fit() -> None:
    shape = LatticeShape(LAYERS, 16, 5)
    costs, source = LatticeCosts(shape, (96, 128)), Random(1)
    weights = tuple(
        tuple(tuple(source.uniform(0.2, 1) * w for w in cell) for cell in cells) for cells in shape.all_open
    )
    works = []
    for budget in (0.3, 0.5, 0.8, 1.0):
        route = usual_route(weights, costs, budget * costs.dense)
        assert costs.work(route) <= budget
        works.append(costs.work(route))
        kept = {w for cells in route.weights for cell in cells for w in cell if w}
        dropped = {w for cells in weights for cell in cells for w in cell if w} - kept
        assert not dropped or min(kept) > max(dropped)
    assert works == sorted(works) and works[-1] == 1


def test_a_network_without_a_lattice_is_refused_in_a_sentence() -> None:
    assert error_of(lambda: LatticeParts(nano())) == (
        "routing needs a lattice network, such as lattice8; SegmentationNetwork has no lattice of cells and "
        "paths to choose from"
    )
