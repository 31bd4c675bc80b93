"""What of a method is trained, at which rate, and what of it a checkpoint holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foveal.data.augmentation import Augment
from foveal.data.batches import Batches
from foveal.methods import Dense
from foveal.models import create_model
from foveal.training.loop import CHECKPOINT, train
from foveal.training.optim import Schedule, create_optimiser
from samples import Scenes, headless

CLASSES = len(Scenes.classes)


class WithPolicy(Dense):
    """Has something beside the network to train, and values that are only logged."""

    late = 0

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.policy = nn.Conv2d(3, 1, 3)
        self.extra = nn.Conv2d(3, 1, 1, bias=False)
        self.frozen = nn.Parameter(torch.ones(4, 4), requires_grad=False)
        self.steps = 0

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        terms = super().loss(image, target)
        terms["policy"] = self.policy(image).square().mean()
        if self.steps >= self.late:
            terms["extra"] = self.extra(image).square().mean()
        terms["share"] = torch.tensor(1e6)
        self.steps += 1
        return terms


def method(late: int = 0) -> WithPolicy:
    torch.manual_seed(5)
    made = WithPolicy(headless(CLASSES))
    made.late = late
    return made


def batches() -> Batches:
    return Batches(Scenes(3), Augment((32, 32)), 2, seed=1)


def trained(folder: Path, late: int = 0, **options: object) -> dict[str, Tensor]:
    settings = {"steps": 1, "learning_rate": 1e-3, "warmup": 1, "weight_decay": 0.0, "average": 0.0} | options
    train(method(late), batches(), Schedule(**settings), folder)  # type: ignore[arg-type]
    return load_file(folder / CHECKPOINT)


def test_the_whole_method_is_trained_averaged_and_stored(tmp_path: Path) -> None:
    made = method()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    network = train(made, batches(), Schedule(3, 1e-2, warmup=1, average=0.6), tmp_path)
    stored = load_file(tmp_path / CHECKPOINT)
    assert network is made.network
    for key, value in made.state_dict().items():
        assert torch.equal(value, stored[f"average.{key}"]), key
        assert stored[key].shape == value.shape
    assert not torch.equal(stored["policy.weight"], before["policy.weight"])
    assert not torch.equal(stored["average.policy.weight"], stored["policy.weight"])
    assert torch.equal(stored["frozen"], before["frozen"])
    assert "exp_avg.policy.weight" in stored and "exp_avg.frozen" not in stored


def test_terms_without_gradient_are_logged_and_do_not_count(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    train(method(), batches(), Schedule(1), tmp_path, report=lambda _, values: seen.append(values))
    assert seen[0]["share"] == 1e6
    assert set(seen[0]) == {"segmentation", "policy", "extra", "share", "learning_rate"}


def test_nothing_to_train_is_refused(tmp_path: Path) -> None:
    frozen = Dense(headless(CLASSES)).requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        train(frozen, batches(), Schedule(1), tmp_path)


def test_the_policy_has_its_own_rate(tmp_path: Path) -> None:
    """The first step of Adam moves every weight by the learning rate, whatever its gradient."""
    before = method().state_dict()
    stored = trained(tmp_path, policy_factor=0.1)
    for key, factor in {"policy.weight": 0.1, "extra.weight": 1.0, "network.6.weight": 1.0}.items():
        assert (stored[key] - before[key]).abs().max().item() == pytest.approx(factor * 1e-3, rel=0.02), key


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_weight_decay_is_decoupled_or_not(optimiser: str) -> None:
    """One step on a zero gradient: AdamW shrinks the weight by its share, Adam moves it by the rate."""
    layer = Dense(nn.Conv2d(3, 2, 1))
    options = {"optimiser": optimiser, "weight_decay": 0.5, "betas": (0.5, 0.9)}
    made = create_optimiser(layer, Schedule(10, **options))  # type: ignore[arg-type]
    before = layer.network.weight.detach().clone()
    for group in made.param_groups:
        group["lr"] = 0.01
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    expected = before - 0.01 * (0.5 * before if optimiser == "adamw" else before.sign())
    torch.testing.assert_close(layer.network.weight.detach(), expected, rtol=1e-4, atol=1e-6)
    assert made.defaults["betas"] == (0.5, 0.9)


def test_the_encoder_has_its_own_decay() -> None:
    network = create_model("swiftnet_nano", 3)
    options = {"weight_decay": 1e-4, "encoder_factor": 0.25, "encoder_decay_factor": 0.25}
    groups = create_optimiser(Dense(network), Schedule(1, **options)).param_groups  # type: ignore[arg-type]
    found = {id(p): (group["factor"], group["weight_decay"]) for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        factor = 0.25 if name.startswith("encoder.") else 1.0
        assert found[id(parameter)] == (factor, factor * 1e-4 if parameter.ndim > 1 else 0.0), name


def test_unknown_optimisers_are_refused() -> None:
    with pytest.raises(ValueError, match="no optimiser named 'sgd'; available: adamw, adam"):
        create_optimiser(Dense(headless()), Schedule(1, optimiser="sgd"))


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_a_resumed_run_goes_on_exactly_also_with_what_learned_late(optimiser: str, tmp_path: Path) -> None:
    """A parameter whose gradient came late has taken fewer steps than the others; the count is kept."""

    class Stop(Exception):
        pass

    def stop(step: int, values: dict[str, float]) -> None:
        if step == 4:
            raise Stop

    schedule = Schedule(6, 1e-2, warmup=1, average=0.5, save_every=2, optimiser=optimiser, policy_factor=0.5)
    train(method(late=3), batches(), schedule, tmp_path / "whole")
    with pytest.raises(Stop):
        train(method(late=3), batches(), schedule, tmp_path / "cut", report=stop)
    again = method(late=3)
    again.steps = 4
    train(again, batches(), schedule, tmp_path / "cut")
    whole, cut = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "cut"))
    assert set(whole) == set(cut)
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())
    assert (float(whole["step.policy.weight"]), float(whole["step.extra.weight"])) == (6.0, 3.0)


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(ValueError, match="is a run of another network or method; give the recipe"):
        train(Dense(headless(CLASSES)), batches(), Schedule(2), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda state, name: state.pop(f"exp_avg_sq.{name}"),
        lambda state, name: state.pop(f"step.{name}"),
        lambda state, name: state.update({f"exp_avg.{name}": torch.zeros(3, 3)}),
        lambda state, name: state.update({f"exp_avg.{name}": state[f"exp_avg.{name}"].int()}),
        lambda state, name: state.update({f"step.{name}": torch.tensor(-1.0)}),
        lambda state, name: state.update({f"step.{name}": torch.ones(2)}),
    ],
)
def test_what_the_optimiser_knew_must_be_whole(
    change: Callable[[dict[str, Tensor], str], object], tmp_path: Path
) -> None:
    dense = Dense(headless(CLASSES))
    train(dense, batches(), Schedule(2), tmp_path)
    file, name = tmp_path / CHECKPOINT, next(name for name, _ in dense.named_parameters())
    state = load_file(file)
    change(state, name)
    save_file(state, file, {"state": json.dumps({"step": 2})})
    with pytest.raises(ValueError, match=f"what the optimiser knew of '{re.escape(name)}' does not fit it"):
        train(dense, batches(), Schedule(3), tmp_path)
