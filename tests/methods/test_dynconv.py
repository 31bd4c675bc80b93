"""DynConv: what is computed where gates are open, and what that costs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from commands import parsed, refused, run
from conformance import CLASSES, answer
from foveal.cost import count_macs
from foveal.data.pairs import default_palette
from foveal.data.synthetic import CLASSES as STREET
from foveal.fusion import fuse
from foveal.gates import GatedNetwork, Gates, GatesConfig
from foveal.hub.card import Card, CheckpointError
from foveal.hub.checkpoint import load_model, save_model
from foveal.methods import Aim, Dense, DynConv, DynConvConfig
from foveal.methods.dynconv import DynConvTraining
from foveal.training.optim import Schedule, create_optimiser
from samples import headless, nano, residual, residual_tower, write_folder

SIZE = (96, 128)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, *SIZE)


def dynconv(network: nn.Module, gates: Gates | None = None, **settings: object) -> DynConv:
    return DynConv(network, DynConvConfig(**settings), gates).eval()  # type: ignore[arg-type]


@torch.no_grad()
def opened(method: DynConv, image: Tensor) -> list[Tensor]:
    """Return the positions of every unit [p, q] that an image [1, C, H, W] opens."""
    return [mask[0] for mask in method.positions(image)]


# Both ends


def test_thresholds_that_open_or_close_everything(image: Tensor) -> None:
    network = fuse(residual())
    whole = dynconv(network, budget=1.0, threshold=-1e9)
    with torch.no_grad():
        assert torch.equal(answer(whole, image).logits, torch.cat([network(x) for x in image.split(1)]))
    assert answer(whole, image).trace.work.tolist() == pytest.approx(
        [1 + whole.fixed - GatedNetwork(network).outside] * 2
    )
    none = dynconv(network, budget=1.0, threshold=1e9)
    assert answer(none, image).trace.work.tolist() == pytest.approx([none.fixed] * 2)
    assert not torch.allclose(answer(none, image).logits, answer(whole, image).logits, atol=1e-3)


def test_the_budget_is_spent_to_a_position(image: Tensor) -> None:
    for budget in (0.3, 0.5, 0.8):
        work = answer(dynconv(residual(), budget=budget), image).trace.work
        assert bool((work <= budget + 1e-9).all()) and bool((work > budget - 0.02).all())


def test_a_budget_below_what_is_outside_of_units_is_refused(image: Tensor) -> None:
    method = dynconv(residual(), budget=0.1)
    with pytest.raises(
        ValueError, match=r"budget is 0.1 and what is outside of residual units takes 0\.\d+.*raise"
    ):
        answer(method, image)
    assert method.least_work(SIZE) == method.fixed > 0.1
    with pytest.raises(ValueError, match="budget is 1, so everything is computed; give a budget below 1"):
        dynconv(residual(), budget=1.0).positions(image)


def test_a_network_without_units_is_refused() -> None:
    with pytest.raises(ValueError, match="Sequential has no residual units"):
        dynconv(headless(CLASSES))


# Gates and controls


def test_the_highest_gates_are_open(image: Tensor) -> None:
    method = dynconv(residual_tower(), budget=0.5)
    first = opened(method, image[:1])[0]
    with torch.no_grad():
        x = method.network[:6](image[:1])  # type: ignore[index]
        logits = method.gates.logits(0, x)[0]
    assert 0 < int(first.sum()) < first.numel()
    assert float(logits[first].min()) >= float(logits[~first].max())


def test_a_threshold_opens_what_reaches_it_within_the_budget(image: Tensor) -> None:
    network = residual_tower()
    free, bound = dynconv(network, budget=1.0, threshold=0.2), dynconv(network, budget=0.4, threshold=0.2)
    with torch.no_grad():
        logits = free.gates.logits(0, network[:6](image[:1]))[0]
    assert torch.equal(opened(free, image[:1])[0], logits >= 0.2)
    wanted, held = answer(free, image).trace.work, answer(bound, image).trace.work
    assert bool((held <= 0.4 + 1e-9).all())
    works = [
        float(answer(dynconv(network, budget=1.0, threshold=t), image).trace.work[0])
        for t in (0.5, 0.2, -0.2)
    ]
    assert all(less <= more for less, more in pairwise(works)) and works[0] < works[-1]
    assert float(wanted[0]) == works[1]


@pytest.mark.parametrize("how", [{"budget": 0.5}, {"budget": 1.0, "threshold": 0.1}], ids=str)
def test_random_positions_are_as_many_and_others(how: dict[str, float], image: Tensor) -> None:
    network = residual_tower()
    gated, drawn = dynconv(network, **how), dynconv(network, choice="random", **how)
    ours, theirs = opened(gated, image[:1])[0], opened(drawn, image[:1])[0]
    assert not torch.equal(ours, theirs)
    if "threshold" in how:
        assert int(ours.sum()) == int(theirs.sum())
    else:
        assert answer(gated, image).trace.work.tolist() == pytest.approx(
            answer(drawn, image).trace.work.tolist(), abs=0.03
        )
    assert torch.equal(opened(drawn, image[:1])[0], theirs)
    with pytest.raises(ValueError, match="no chooser of positions named 'luck'"):
        DynConvConfig(0.5, choice="luck")


@pytest.mark.parametrize("side", [2, 4])
def test_squares_open_as_one(side: int, image: Tensor) -> None:
    trained = Gates(GatesConfig(dynconv(residual_tower()).gates.config.units, side=side))
    for method in (
        dynconv(residual_tower(), budget=0.5, side=side),
        dynconv(residual_tower(), trained, budget=0.5),
    ):
        for mask in opened(method, image[:1]):
            rows, columns = (n // side * side for n in mask.shape)
            cells = mask[:rows, :columns].reshape(rows // side, side, columns // side, side)
            assert torch.equal(cells.any(3).any(1), cells.all(3).all(1))
            assert bool(mask.any()) and not bool(mask.all())


def test_units_that_wanted_more_in_training_get_more(image: Tensor) -> None:
    method = dynconv(residual_tower(), budget=0.4)
    even = [float(mask.double().mean()) for mask in opened(method, image[:1])]
    method.gates.used[:] = torch.tensor([0.9, 0.1, 0.1, 0.1])
    first, *rest = [float(mask.double().mean()) for mask in opened(method, image[:1])]
    assert first > 1.5 * even[0] and max(rest) < 0.7 * min(even[1:])
    assert float(answer(method, image).trace.work.max()) <= 0.4 + 1e-9


def test_pointwise_gates_cost_a_tenth() -> None:
    method = dynconv(residual_tower())
    units = method.units
    wide, small = (Gates.of(units, kind).macs(units) for kind in ("squeeze", "pointwise"))
    assert wide == 10 * small
    other = dynconv(residual_tower(), Gates.of(units, "pointwise"), budget=0.5)
    x = torch.rand(1, 3, 128, 192)
    spent, dense = (count_macs(lambda m=m: m(x)).convolution for m in (other, Dense(other.network)))
    assert spent == round(dense * float(answer(other, x).trace.work))


def test_gates_of_another_network_are_refused() -> None:
    gates = dynconv(residual_tower()).gates
    with pytest.raises(ValueError, match=r"the gates are of 4 units, such as .* of 16 channels"):
        dynconv(residual(), gates)


# Training


def trained(**keys: object) -> DynConv:
    torch.manual_seed(0)
    training = DynConvTraining(name="dynconv", **{"budget": 0.6} | keys)  # type: ignore[arg-type]
    return DynConv.for_training(residual(), training, Aim(steps=80)).train()


def test_training_brings_the_work_to_the_budget() -> None:
    """From gates that open nearly everything, on images of which a part is flat."""
    method = trained()
    with torch.no_grad():
        for gate in method.gates.gates:
            gate.norm.bias.fill_(4.0)
    image = torch.rand(4, 3, 64, 96)
    image[:, :, :, 40:] *= 0.05
    target = torch.randint(0, CLASSES, (4, 64, 96))
    optimiser = torch.optim.Adam(method.gates.parameters())
    for step in range(80):
        optimiser.param_groups[0]["lr"] = 0.2 * (1 - step / 80)
        losses = method.loss(image, target)
        optimiser.zero_grad()
        sum(losses.values()).backward()  # type: ignore[union-attr]
        optimiser.step()
    assert int(method.done) == 80
    free = DynConv(method.network, DynConvConfig(1.0, threshold=0.0), method.gates).eval()
    assert float(answer(free, image).trace.work.mean()) == pytest.approx(0.6, abs=0.05)
    assert float(method.gates.used.mean()) < 0.95


def test_noise_stops_for_the_last_steps() -> None:
    method = trained(quiet=0.2).eval()  # its norms stay
    image, target = torch.rand(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.long)
    for done, noisy in ((0, True), (63, True), (64, False), (80, False)):
        method.done.fill_(done)
        first, second = (float(method.loss(image, target)["segmentation"].detach()) for _ in range(2))
        assert (first != second) == noisy, done


def test_frozen_networks_learn_gates_alone() -> None:
    method = trained(frozen=True)
    losses = method.loss(torch.rand(2, 3, 64, 96), torch.randint(0, CLASSES, (2, 64, 96)))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in method.network.parameters())
    assert all(p.grad is not None for p in method.gates.parameters())
    assert DynConvTraining(name="dynconv", frozen=True).freezes_network


def test_a_target_below_what_is_outside_of_units_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"method.budget is 0.1 and all outside of residual units takes 0\.\d+"
    ):
        trained(budget=0.1)


def test_gates_do_not_decay_and_have_a_rate_of_their_own() -> None:
    schedule = Schedule(10, weight_decay=0.1, policy_factor=7.0)
    method = trained()
    groups = create_optimiser(method, schedule).param_groups
    ours = {id(p) for p in method.gates.parameters()}
    for group in groups:
        gates = {id(p) in ours for p in group["params"]}
        assert len(gates) == 1
        if gates == {True}:
            assert (group["factor"], group["weight_decay"]) == (7.0, 0.0)
    assert any(group["weight_decay"] == 0.1 for group in groups)


# Files and commands


def saved(folder: Path, gated: bool = True) -> Path:
    """Write a model of street scenes, with gates or without."""
    network = nano(len(STREET))
    method = dynconv(network)
    with torch.no_grad():
        method.gates.used.copy_(torch.tensor([0.5, 0.25, 0.75, 1.0]))
    card = Card("swiftnet_nano", STREET, default_palette(len(STREET)))
    return save_model(network, card, folder / "streets", parts={"gates": method.gates} if gated else {})


def test_gates_are_in_the_file_of_their_network(tmp_path: Path, image: Tensor) -> None:
    torch.manual_seed(1)
    model = load_model(saved(tmp_path))
    gates = model.part(Gates)
    assert gates is not None and gates.used.tolist() == [0.5, 0.25, 0.75, 1.0]
    assert gates.config.units[0].unit == "encoder_stages_0_0_conv2"
    ours = DynConv.from_config(model.network, DynConvConfig(0.85), model.resources).eval()
    assert ours.gates is gates
    fresh = dynconv(model.network, budget=0.85)
    assert torch.equal(answer(ours, image).logits, answer(fresh, image).logits) is False


def test_a_description_of_no_gates_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    card = path.with_suffix(".json")
    card.write_text(card.read_text().replace('"squeeze"', '"sigmoid"'))
    with pytest.raises(CheckpointError, match="gates"):
        load_model(path)


def test_commands_run_it_where_gates_were_trained(tmp_path: Path) -> None:
    call = ("--data", f"folder:{write_folder(tmp_path / 'data', 2, (64, 96))}", "--timed", 0, "--json")
    call = ("evaluate", saved(tmp_path, gated=False), *call, "--method", "dynconv", "--budget", 0.85)
    assert "has no gates, which dynconv needs" in refused(run(*call))
    saved(tmp_path)
    dense, *rows = parsed(run(*call, "--choice", "gates", "random"))
    assert [row["settings"]["choice"] for row in rows] == ["gates", "random"]
    for row in rows:
        assert 0.8 < row["work"] <= row["work_max"] <= 0.85
        assert row["macs"] / dense["macs"] == pytest.approx(row["work"], abs=0.01)
