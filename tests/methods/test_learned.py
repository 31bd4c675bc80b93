"""SegBlocks with a policy network that learns: beside its network, or alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from foveal.hub.checkpoint import load_model
from foveal.methods import Resources, SegBlocks, SegBlocksConfig
from foveal.objectives.policy_gradient import GRADIENTS, PolicyLoss
from foveal.policies import Learned, PolicyNet, View
from foveal.training.build import build_run, save_run
from foveal.training.config import Recipe, read_recipe
from foveal.training.loop import train
from samples import nano, write_folder

BLOCK, TILE = 8, 4


def hard_blocks() -> Tensor:
    """Say which blocks of two images of 32x64 px are hard, a quarter of them [2, 4, 8]."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(4))
    return (order < 16).view(2, 4, 8)


def toy(gradient: str, target: float) -> tuple[SegBlocks, Tensor, Tensor]:
    """Make a fixed network that says "class 0" everywhere, and images of class 1 where they are bright."""
    network = nn.Conv2d(3, 2, 1).requires_grad_(False)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.copy_(torch.tensor([2.0, 0.0]))
    labels = hard_blocks().long().repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
    image = 0.2 + 0.5 * labels[:, None] + 0.1 * torch.rand(2, 3, 32, 64)
    method = SegBlocks(network, Learned(PolicyNet(BLOCK, 8, 2), TILE))
    method.policy_loss = PolicyLoss(target, gradient=gradient)
    return method, image, labels


def learn(method: SegBlocks, image: Tensor, labels: Tensor, steps: int) -> float:
    """Train the policy, and return the mean share of the last ten draws."""
    optimiser = torch.optim.Adam(method.policy.parameters(), 0.02)
    shares = []
    for _ in range(steps):
        losses = method.train().loss(image, labels)
        optimiser.zero_grad()
        losses["policy"].backward()
        optimiser.step()
        shares.append(float(losses["share"]))
    return sum(shares[-10:]) / 10


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_policy_learns_to_look_at_what_is_hard(gradient: str) -> None:
    method, image, labels = toy(gradient, target=0.25)
    share = learn(method, image, labels, 60)
    assert share == pytest.approx(0.25, abs=0.06)
    with torch.no_grad():
        plan = method.eval()(image).trace.plan
        exact = Learned(method.policy.net, TILE, 0.25 + 0.25 * 0.75)(View(image[:1]))
    wanted = (~hard_blocks()).repeat_interleave(2, 1).repeat_interleave(2, 2).to(torch.int8)
    assert torch.equal(plan.levels, wanted)
    hardest = hard_blocks()[0].sum()
    fine = (exact.levels[0, ::2, ::2] == 0) & hard_blocks()[0]
    assert int(fine.sum()) == min(int(hardest), 8)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_policy_learns_to_keep_its_share(gradient: str) -> None:
    """More than what is hard: the rest are drawn by chance, the hard ones still come first."""
    method, image, labels = toy(gradient, target=0.6)
    assert learn(method, image, labels, 60) == pytest.approx(0.6, abs=0.08)
    with torch.no_grad():
        logits = method.policy.net.eval()(image)
    assert logits[hard_blocks()].min() > logits[~hard_blocks()].max()


# Terms of the loss


def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(2, 3, 96, 128), torch.randint(0, 5, (2, 96, 128))


def test_beside_its_network_the_loss_reaches_every_parameter() -> None:
    method = SegBlocks(nano(), Learned(PolicyNet(64, 8, 4), 32)).train()
    losses = method.loss(*batch())
    assert set(losses) == {"segmentation", "policy", "share"}
    assert not losses["share"].requires_grad
    (losses["segmentation"] + losses["policy"]).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


def test_the_policy_does_not_move_the_network_nor_the_segmentation_the_policy() -> None:
    method = SegBlocks(nano(), Learned(PolicyNet(64, 8, 4), 32)).train()
    losses = method.loss(*batch())
    losses["policy"].backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in method.network.parameters())
    method.zero_grad()
    losses["segmentation"].backward()
    assert all(parameter.grad is None for parameter in method.policy.parameters())


def test_for_a_fixed_network_only_the_policy_carries_a_gradient() -> None:
    method = SegBlocks(nano().requires_grad_(False), Learned(PolicyNet(64, 8, 4), 32))
    losses = method.loss(*batch())
    assert {name: loss.requires_grad for name, loss in losses.items()} == {
        "segmentation": False, "policy": True, "share": False,
    }  # fmt: skip


# Runs


def recipe_for(tmp_path: Path, **method: object) -> Recipe:
    folder = write_folder(tmp_path / "data", 2, (96, 128))
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'model.name = "swiftnet_nano"\ndata = {{ train = "folder:{folder}", crop = [96, 128] }}\n'
        "train = { steps = 2, batch = 2, warmup = 1, average = 0.5 }\n"
        'method = { name = "segblocks", policy = "learned", policy_width = 8 }\n'
    )
    return read_recipe(path, [f"method.{key}={str(value).lower()}" for key, value in method.items()])


@pytest.mark.parametrize("frozen", [True, False])
def test_a_run_moves_the_policy_and_the_network_unless_it_is_frozen(frozen: bool, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, frozen=frozen, gradient="expected")
    method, batches, schedule, _ = build_run(recipe, tmp_path / "run")
    before = {key: value.clone() for key, value in method.state_dict().items()}
    train(method, batches, schedule, tmp_path / "run")
    after = method.state_dict()
    network = {key for key in before if key.startswith("network.")}
    same = {key for key, value in before.items() if torch.equal(value, after[key])}
    weights = {name for name, _ in method.named_parameters()}
    assert weights - network and not same & (weights - network)
    if frozen:
        assert network <= same
    else:
        assert not same & network & weights


def test_what_a_run_saved_is_loaded_and_plans_alike(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path)
    method, batches, schedule, data = build_run(recipe, tmp_path / "run")
    train(method, batches, schedule, tmp_path / "run")
    model = load_model(save_run(recipe, tmp_path / "run", method, data))
    assert model.card.parts["policy"] == {"block": 64, "width": 8, "depth": 4}
    image = torch.rand(2, 3, 150, 200)
    made = SegBlocks.from_config(
        model.network, SegBlocksConfig(0.6, "learned", model.card.tile), Resources(model.parts)
    )
    method.policy.net.share, method.policy.budget = model.parts["policy"].share, 0.6
    with torch.no_grad():
        found, expected = made.eval()(image).trace, method.eval()(image).trace
    assert torch.equal(found.plan.levels, expected.plan.levels)
    assert torch.equal(found.work, expected.work)
    assert [step.name for step in found.steps] == ["policy", "network"]


def test_a_recipe_says_what_the_policy_aims_at(tmp_path: Path) -> None:
    method = build_run(
        recipe_for(tmp_path, target=0.3, gamma=2, policy_weight=5, gradient="expected"), tmp_path
    )[0]
    assert isinstance(method, SegBlocks)
    assert method.policy_loss == PolicyLoss(0.3, 2.0, 5.0, "expected")
    assert method.policy.net.config == {"block": 64, "width": 8, "depth": 4}


def test_a_learned_policy_without_a_policy_network_is_refused() -> None:
    with pytest.raises(
        ValueError, match="needs a trained policy network; give a model that was trained with one"
    ):
        SegBlocks.from_config(nano(), SegBlocksConfig(policy="learned"))
