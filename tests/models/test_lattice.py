"""A lattice with all paths open: its cells, its weights of paths, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from conformance import assert_close
from foveal.fusion import fuse
from foveal.geometry.plan import Plan
from foveal.models import MODELS, create_model
from foveal.models.lattice import SCALES, WAYS, LatticeNetwork, LatticeShape
from foveal.tiles import split
from samples import error_of, lattice


@pytest.mark.parametrize(("name", "layers", "width"), [("lattice8", 8, 16), ("lattice16", 16, 64)])
def test_cells_are_those_of_the_paper(name: str, layers: int, width: int) -> None:
    with torch.device("meta"):
        network = create_model(name, 19)
    assert isinstance(network, LatticeNetwork) and network.lattice == LatticeShape(layers, width, 19)
    counts = [sum(layer == here for layer, _ in network.lattice.cells) for here in range(layers + 1)]
    assert counts == [1, 2, 3] + [SCALES] * (layers - 2)
    assert network.lattice.ways(0, 0) == ("keep", "down")
    assert network.lattice.ways(3, 3) == ("up", "keep")
    assert network.lattice.ways(4, 1) == WAYS
    assert all(network.lattice.ways(layers, scale) == ("keep",) for scale in range(SCALES))
    assert (network.stride, network.coarsest_stride) == (4, 32)


def test_the_lattices_of_the_paper_are_in_the_table() -> None:
    with torch.device("meta"):
        shapes = {name: create_model(name, 19).lattice for name in MODELS if name.startswith("lattice")}  # type: ignore[attr-defined]
    assert shapes["lattice33"].layers == 33 and shapes["lattice16"].channels(3) == 512


@pytest.mark.parametrize("size", [(64, 96), (33, 47), (1, 97), (1, 1)])
def test_logits_are_at_stride_4_of_any_image(size: tuple[int, int]) -> None:
    with torch.no_grad():
        found = lattice()(torch.rand(2, 3, *size))
    assert found.shape == (2, 5, *(-(-side // 4) for side in size))


def test_tiles_at_full_resolution_are_the_lattice() -> None:
    network, image = lattice(), torch.rand(1, 3, 75, 110)
    with torch.no_grad():
        tiles = network(split(image, Plan.uniform(1, (75, 110), 32)))
        assert_close(tiles.dense(), network(image))


def test_weights_of_paths_scale_what_goes_through_them() -> None:
    """Without every path out of a cell but one, the lattice is that path."""
    network, image = lattice(), torch.rand(1, 3, 64, 64)
    encoder = network.encoder
    with torch.no_grad():
        before = network(image)
        weights = encoder.usual.clone()  # type: ignore[union-attr, operator]
        weights[1:] *= 0.5
        encoder.set_weights(weights)  # type: ignore[operator]
        halved = network(image)
        assert not torch.allclose(halved, before, rtol=0.01)
        weights[:, :, -1] = 1.0  # every cell hands on what it is given, and nothing else
        weights[:, :, :-1] = 0.0
        encoder.set_weights(weights)  # type: ignore[operator]
        stem = encoder.stem((image - network.mean) / network.std)  # type: ignore[operator]
        assert torch.equal(encoder((image - network.mean) / network.std)[0], stem)  # type: ignore[operator]


def test_weights_of_paths_are_saved_and_loaded() -> None:
    one, other = lattice(), lattice()
    weights = torch.rand_like(one.encoder.usual)  # type: ignore[arg-type]
    one.encoder.set_weights(weights)  # type: ignore[operator]
    other.load_state_dict(one.state_dict())
    image = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        assert torch.equal(one(image), other(image))
    assert other.path_weights == one.path_weights
    assert other.path_weights[2][1][0] == pytest.approx(float(weights[2, 1, 0]))


def test_joined_layers_keep_the_names_of_the_parts() -> None:
    network, image = lattice(), torch.rand(1, 3, 70, 90)
    joined = fuse(network)
    x = torch.rand(1, 64, 12, 9)
    with torch.no_grad():
        for name in ("body", "up", "down"):
            ours, theirs = (each.get_submodule(f"encoder.layers.3.1.{name}") for each in (joined, network))
            assert_close(ours(x), theirs(x), 1e-4)
        across = fuse(network, separate=())
        assert_close(across(image), network(image), 1e-4)
        assert_close(joined(image), network(image), 1e-4)
    assert not [module for module in joined.modules() if isinstance(module, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("layers", "width", "message"), [(2, 16, "3 to 64 layers"), (8, 5, "an even number")]
)
def test_a_lattice_that_cannot_be_is_refused(layers: int, width: int, message: str) -> None:
    assert message in error_of(lambda: LatticeNetwork(layers, width, 3))
