"""Routing: images take their own paths, and what is closed costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from commands import parsed, refused, run, small_model
from conformance import CLASSES, answer, assert_close
from foveal.cost import count_macs
from foveal.data import synthetic as street
from foveal.data.image import save_image
from foveal.data.pairs import default_palette
from foveal.fusion import fuse
from foveal.hub.card import Card, CheckpointError
from foveal.hub.checkpoint import load_model, save_model
from foveal.methods import Aim, Routing, RoutingConfig
from foveal.methods.routing import BUDGETED, RoutingTraining
from foveal.models.lattice import LatticeNetwork
from foveal.reporting.route_picture import draw_route
from foveal.routes import (
    FIXED,
    Chance,
    FixedChoice,
    LatticeCosts,
    LatticeParts,
    Route,
    Router,
    expected_share,
    fixed_route,
    soft,
)
from samples import error_of, lattice, lively, nano, shaken, write_folder

SIZE = (96, 128)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 3, *SIZE)


def gates(network: LatticeNetwork, spread: float = 3.0, seed: int = 0) -> Router:
    """Make gates that decide by the image: some paths closed, some open."""
    torch.manual_seed(seed)
    router = shaken(Router.fresh(network.lattice))
    for gate in router.gates.modules():
        if isinstance(gate, nn.Conv2d) and gate.bias is not None:
            nn.init.normal_(gate.weight, std=spread)
            nn.init.normal_(gate.bias, std=1.0)
    return router.eval()


def routing(network: nn.Module, router: Router | None = None, **settings: Any) -> Routing:
    return Routing(network, RoutingConfig(**settings), router).eval()


class Told(Router):
    """Gates that open what they are told: a route for the first image, another for the second."""

    def __init__(self, network: LatticeNetwork, dark: Route, light: Route) -> None:
        super().__init__(network.lattice.layers, network.lattice.width)
        self.routes, self.image = (dark, light), 0

    def forward(self, layer: int, scale: int, x: Tensor) -> Tensor:
        if layer == 0:
            self.image += 1
        cell = dict(
            zip(("up", "keep", "down"), self.routes[self.image - 1].weights[layer][scale], strict=True)
        )
        return torch.tensor([[cell[way] for way in self.shape.ways(layer, scale)]])


# What runs


def test_cells_that_an_image_leaves_out_do_not_run_for_it_in_a_batch() -> None:
    network, images = lattice(CLASSES), torch.rand(2, 3, *SIZE)
    routes = fixed_route("fcn32s", 5), fixed_route("hrnetv2", 5)
    method = routing(network, Told(network, *routes), budget=1.0, threshold=0.0)
    calls: dict[str, int] = {}
    for name, module in network.named_modules():
        if name.endswith(".body"):
            module.register_forward_hook(lambda *_, at=name: calls.update({at: calls.get(at, 0) + 1}))
    found = answer(method, images)
    ran = {(int(layer), int(scale)): n for at, n in calls.items() for layer, scale in [at.split(".")[2:4]]}
    expected = {cell: sum(cell in route.computed for route in routes) for cell in network.lattice.cells}
    assert ran == {cell: count for cell, count in expected.items() if count}
    assert found.trace.routes == routes
    alone = [
        answer(routing(network, Told(network, r, r), budget=1.0, threshold=0.0), x[None])
        for r, x in zip(routes, images, strict=True)
    ]
    for k, each in enumerate(alone):
        assert torch.equal(each.logits[0], found.logits[k]) and each.trace.work[0] == found.trace.work[k]


@pytest.mark.parametrize("budget", [0.25, 0.4, 0.7, 0.95])
@pytest.mark.parametrize("route", BUDGETED)
def test_macs_are_those_of_the_routes_with_gates_and_within_the_budget(
    route: str, budget: float, image: Tensor
) -> None:
    network = lattice(CLASSES)
    for joined in (False, True):
        method = routing(fuse(network) if joined else network, gates(network), budget=budget, route=route)
        seen: list[Any] = []
        macs = count_macs(lambda m=method, s=seen: s.append(m(image))).total
        costs, trace = method.costs(SIZE), seen[0].trace
        assert macs == round(float(trace.work.sum()) * costs.dense)
        assert float(trace.work.max()) <= budget + 1e-9
        without = [costs.work(taken) for taken in trace.routes]
        assert all(w <= work for w, work in zip(without, trace.work.tolist(), strict=True))
        assert (without == trace.work.tolist()) == (route != "gates")


def test_gates_decide_image_by_image_and_the_usual_route_does_not(image: Tensor) -> None:
    network = lattice(CLASSES)
    found = answer(routing(network, gates(network), budget=0.6), image).trace.routes
    assert len(set(found)) == 3
    same = answer(routing(network, gates(network), budget=0.6, route="usual"), image).trace.routes
    assert len(set(same)) == 1
    chance = [answer(routing(network, budget=0.6, route="random"), image).trace.routes for _ in range(2)]
    assert chance[0] == chance[1] and len(set(chance[0])) == 3


def test_the_usual_route_follows_weights_that_are_loaded(image: Tensor) -> None:
    network, other = lattice(CLASSES), lattice(CLASSES)
    method = routing(network, budget=0.5, route="usual")
    first = answer(method, image).trace.routes[0]
    other.encoder.set_weights(torch.rand_like(other.encoder.usual) * other.encoder.usual)  # type: ignore[arg-type, operator]
    network.load_state_dict(other.state_dict())
    second = answer(method, image).trace.routes[0]
    assert first != second == answer(routing(other, budget=0.5, route="usual"), image).trace.routes[0]


def test_the_weakest_paths_of_a_layer_are_closed_first(image: Tensor) -> None:
    network = lattice(CLASSES)
    router = gates(network)
    method, whole = (routing(network, router, budget=b, threshold=0.0) for b in (0.5, 1.0))
    tight, wide = answer(method, image[:1]).trace.routes[0], answer(whole, image[:1]).trace.routes[0]
    first = next(layer for layer in range(6) if tight.weights[layer] != wide.weights[layer])
    kept = [w for cell in tight.weights[first] for w in cell if w]
    weights = [w for cell in wide.weights[first] for w in cell if w]
    dropped = [w for w in weights if w not in kept]
    assert dropped and (not kept or max(dropped) <= max(weights))
    cells = [scale for scale in range(4) if tight.weights[first][scale] != wide.weights[first][scale]]
    for scale in cells:
        pair = zip(tight.weights[first][scale], wide.weights[first][scale], strict=True)
        assert all(ours in (0.0, theirs) for ours, theirs in pair)


def test_a_threshold_closes_what_is_below_it(image: Tensor) -> None:
    network = lattice(CLASSES)
    router = gates(network)
    none, some, most = (
        answer(routing(network, router, budget=1.0, threshold=t), image).trace for t in (0.0, 0.7, 0.99)
    )
    assert bool((none.work > some.work).all()) and bool((some.work > most.work).all())
    weights = [w for route in some.routes for cells in route.weights for cell in cells for w in cell if w]
    assert min(weights) >= 0.7


def test_a_cell_whose_paths_are_closed_hands_on_what_it_is_given(image: Tensor) -> None:
    network = lattice(CLASSES)
    parts, router = LatticeParts(network), Router.fresh(network.lattice).eval()
    nn.init.constant_(router.gates[2][1].weigh.bias, -5.0)  # type: ignore[index, union-attr, arg-type]
    with torch.no_grad():
        logits, weights = soft(parts, router, image[:1])
        assert not weights[2, 1].any()
        method = routing(network, router, budget=1.0, threshold=0.0)
        route = Route.of(5, {cell: _by_way(network, cell, alpha) for cell, alpha in weights.items()})
        taken, _ = parts.run(
            image[:1], FixedChoice(route), Chance(parts.shape, parts.usual, 0), method.costs(SIZE)
        )
    assert_close(taken, logits)
    assert (2, 1) not in route.computed and (3, 1) in route.computed


def _by_way(network: LatticeNetwork, cell: tuple[int, int], alpha: Tensor) -> list[float]:
    by_way = dict(zip(network.lattice.ways(*cell), alpha[0].tolist(), strict=True))
    return [by_way.get(way, 0.0) for way in ("up", "keep", "down")]


@pytest.mark.parametrize("name", FIXED)
def test_fixed_routes_cost_what_they_cost(name: str, image: Tensor) -> None:
    network = lattice(CLASSES)
    method = routing(network, budget=1.0, route=name)
    assert not method.config.adjustable and not method.config.is_dense
    found = answer(method, image)
    assert found.trace.routes == (fixed_route(name, 5),) * 3
    assert found.trace.work.tolist() == [LatticeCosts(network.lattice, SIZE).work(fixed_route(name, 5))] * 3
    too_small = routing(network, budget=0.9 * float(found.trace.work[0]), route=name)
    assert f"route {name} takes" in error_of(lambda: answer(too_small, image))


def test_a_budget_that_pays_for_no_stem_is_refused_in_a_sentence(image: Tensor) -> None:
    message = error_of(lambda: answer(routing(lattice(), budget=0.05), image))
    assert message.startswith("budget is 0.05, and stem and decoder take 0.")
    assert message.endswith("of the dense lattice's work; raise the budget")


# What does not fit


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    assert error_of(lambda: routing(nano())).startswith("routing needs a lattice network, such as lattice8;")
    assert "the router is for 8 layers of width 32, the network has 5 of 32; give the two" in error_of(
        lambda: routing(lattice(), Router(8, 32))
    )
    assert "no route named 'gate'; did you mean 'gates'?" in error_of(lambda: RoutingConfig(route="gate"))
    assert "threshold is 2; give a value from 0 to 1" in error_of(lambda: RoutingConfig(threshold=2.0))


def test_other_networks_are_refused_by_the_command(tmp_path: Path) -> None:
    save_image(street.street(1, (96, 160))[0], tmp_path / "street.png")
    model = small_model(tmp_path)
    said = refused(run("segment", tmp_path / "street.png", "--model", model, "--method", "routing"))
    assert "has no router, which routing needs: train the network with a recipe of method routing" in said


# Training


def trained(network: LatticeNetwork, **keys: Any) -> Routing:
    return Routing.for_training(network, RoutingTraining(name="routing", **keys), Aim(steps=100)).train()


def test_the_budget_loss_is_that_of_the_paper() -> None:
    network = lattice(CLASSES).train()
    method = trained(network, budget_weight=0.8, budget=0.3, budget_from=0.4)
    image, target = torch.rand(2, 3, 64, 64), torch.randint(0, CLASSES, (2, 64, 64))
    assert set(method.loss(image, target)) == {"segmentation"}
    for step, share in ((40, 0.0), (41, 0.5), (42, 1.0), (99, 1.0)):
        method.step.fill_(step)
        terms = method.loss(image, target)
        _, weights = soft(method.parts, method.router, image)
        costs = method.costs((64, 64))
        expected = costs.routed * 0.0
        for (layer, scale), alpha in weights.items():
            ways = network.lattice.ways(layer, scale)
            expected += float(alpha.amax(1).mean().detach()) * costs.body(scale)
            means = alpha.detach().mean(0).tolist()
            expected += sum(m * costs.way(way, scale) for m, way in zip(means, ways, strict=True))
        wanted = 0.8 * share * (expected / costs.routed - 0.3) ** 2
        assert float(terms.get("budget", torch.zeros(())).detach()) == pytest.approx(wanted, rel=1e-3)
        assert ("budget" in terms) == (share > 0)


def test_all_gates_open_expect_all_of_the_cost() -> None:
    network = lattice(CLASSES)
    weights = {cell: torch.ones(2, len(network.lattice.ways(*cell))) for cell in network.lattice.cells}
    assert float(expected_share(LatticeCosts(network.lattice, SIZE), weights)) == pytest.approx(1.0)


def test_training_moves_the_usual_weights_towards_the_gates() -> None:
    network = lattice(CLASSES)
    method = trained(network)
    image, target = torch.rand(2, 3, 64, 64), torch.randint(0, CLASSES, (2, 64, 64))
    for _ in range(3):
        method.loss(image, target)
    assert int(method.step) == 3
    usual = network.path_weights
    share = 1 - 0.99**3
    assert usual[1][0][1] == pytest.approx(1 - share * (1 - 0.905), abs=2e-3)
    assert usual[1][0][0] == 0.0 and usual[1][0][3] == 0.0
    method.eval().loss(image, target)
    assert network.path_weights == usual and int(method.step) == 3


def test_steps_that_close_paths_close_the_weakest() -> None:
    network = lattice(CLASSES)
    parts, router, image = LatticeParts(network), gates(network), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        whole, weights = soft(parts, router, image)
        some, same = soft(parts, router, image, 0.5)
        none, _ = soft(parts, router, image, 0.999)
    assert torch.equal(weights[0, 0], same[0, 0])
    assert not torch.allclose(whole, some) and not torch.allclose(some, none)


def test_settings_with_a_budget_take_less_than_raw() -> None:
    """The settings of the paper, on gates alone. So early the order of A, B and C is a matter of rounding."""
    torch.manual_seed(1)
    image, target = torch.rand(2, 3, 32, 32), torch.randint(0, CLASSES, (2, 32, 32))
    settings = {"a": (0.8, 0.1), "b": (0.5, 0.1), "c": (0.5, 0.2), "raw": (0.0, 0.0)}
    network, works = lattice(CLASSES), {}
    for name, (weight, aim) in settings.items():
        method = trained(network, budget_weight=weight, budget=aim, budget_from=0.0)
        method.step.fill_(50)
        optimiser = torch.optim.Adam(method.router.parameters(), 0.05)
        for _ in range(40):
            optimiser.zero_grad()
            torch.stack(list(method.loss(image, target).values())).sum().backward()
            optimiser.step()
        ready = routing(network.eval(), method.router.eval(), budget=1.0, threshold=0.0)
        works[name] = float(answer(ready, image).trace.work.mean())
        network.train()
    assert max(works["a"], works["b"], works["c"]) < 0.9 * works["raw"], works


# Files, commands and pictures


def saved(path: Path) -> tuple[LatticeNetwork, Router, Path]:
    torch.manual_seed(3)
    network = lively(shaken(LatticeNetwork(8, 16, CLASSES)).eval(), torch.rand(3, *SIZE))
    network.encoder.set_weights(torch.rand_like(network.encoder.usual) * network.encoder.usual)
    router = gates(network)
    card = Card("lattice8", tuple("abcde"), default_palette(CLASSES))
    return network, router, save_model(network, card, path / "model", parts={"router": router})


def test_gates_are_saved_with_the_network(tmp_path: Path, image: Tensor) -> None:
    network, router, path = saved(tmp_path)
    loaded = load_model(path)
    assert loaded.card.parts == {"router": {"layers": 8, "width": 16, "small": 1}}
    ours = Routing.from_config(loaded.network, RoutingConfig(0.5), loaded.resources).eval()
    theirs = routing(network, router, budget=0.5)
    for one, other in zip(answer(ours, image).trace.routes, answer(theirs, image).trace.routes, strict=True):
        assert one.computed == other.computed and one.open_paths == other.open_paths > 5
    assert_close(answer(ours, image).logits, answer(theirs, image).logits, 1e-4)
    with torch.no_grad():
        assert_close(loaded.network(image), network(image), 1e-4)


def test_gates_of_another_description_are_refused(tmp_path: Path) -> None:
    _, _, path = saved(tmp_path)
    card = path.with_suffix(".json")
    for given, message in (('"layers": 4', "of another network"), ('"layers": 1', "3 to 64 layers")):
        text = card.read_text()
        card.write_text(text.replace('"layers": 8', given))
        with pytest.raises(CheckpointError, match=message):
            load_model(path)
        card.write_text(text)


def test_a_route_is_drawn_and_said(tmp_path: Path) -> None:
    _, _, path = saved(tmp_path)
    save_image(street.street(1, (96, 160))[0], tmp_path / "street.png")
    call = ("segment", tmp_path / "street.png", "--model", path, "--out", tmp_path / "out", "--json")
    row = parsed(run(*call, "--method", "routing", "--budget", 0.5))
    assert row["work"] <= 0.5 and row["macs"] < row["dense_macs"]
    route = Route.from_json(row["route"])
    assert Image.open(row["files"]["plan"]).size == draw_route(route).size
    assert "route" not in parsed(run(*call, "--method", "dense"))


def test_a_drawn_route_shows_its_paths() -> None:
    empty, full = draw_route(fixed_route("fcn32s", 8)), draw_route(Route.all_open(8))
    assert empty.size == full.size and empty.mode == "RGB"
    lit = [sum(sum(pixel) > 300 for pixel in picture.getdata()) for picture in (empty, full)]
    assert lit[0] < 0.7 * lit[1]


def test_a_recipe_trains_a_lattice_with_its_gates(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 4, (64, 96))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[model]\nname = "lattice8"\n[data]\ntrain = "folder:{data}"\ncrop = [32, 32]\n'
        '[method]\nname = "routing"\nclosed = 0.5\n'
        "[train]\nsteps = 5\nbatch = 2\nwarmup = 1\nsave_every = 5\n"
    )
    run("train", recipe, "--run", tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert model.part(Router) is not None and model.card.parts["router"]["layers"] == 8
    assert 0.9 < model.network.path_weights[1][0][1] < 1
    call = ("evaluate", tmp_path / "run", "--data", f"folder:{data}", "--timed", 0, "--json")
    rows = parsed(run(*call, "--method", "routing", "--budget", 0.4, "--route", "gates", "random", "usual"))
    assert [row["settings"]["route"] for row in rows[1:]] == ["gates", "random", "usual"]
    assert all(row["work_max"] <= 0.4 and row["macs"] < rows[0]["macs"] for row in rows[1:])
