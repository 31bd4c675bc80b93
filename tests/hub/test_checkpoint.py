from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from foveal.cost import count_macs
from foveal.hub.card import Card, CheckpointError
from foveal.hub.checkpoint import bundled, load_model, save_model
from foveal.policies import Learned, PolicyNet, View
from samples import nano, shaken

CARD = Card(
    "swiftnet_nano",
    ("road", "car", "sky"),
    ((1, 2, 3), (4, 5, 6), (7, 8, 255)),
    tile=48,
    max_level=1,
    coarse_level=1,
    training={"miou": 0.5, "recipe": {"seed": 1}},
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(nano(3), CARD, tmp_path / "model.safetensors")


def change_card(path: Path, **changes: Any) -> None:
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


def sentence(name: str | Path) -> str:
    """Message of the CheckpointError; it must be one line."""
    with pytest.raises(CheckpointError) as error:
        load_model(name)
    assert "\n" not in str(error.value)
    assert "\t" not in str(error.value)
    return str(error.value)


def test_a_loaded_model_gives_the_same_answer_and_card(tmp_path: Path) -> None:
    network, image = nano(3), torch.rand(1, 3, 40, 56)
    path = save_model(network, CARD, tmp_path / "deep" / "folder" / "model")
    model = load_model(path)
    assert path == tmp_path / "deep" / "folder" / "model.safetensors"
    assert model.card == CARD
    assert model.name == "model"
    assert not model.network.training
    with torch.no_grad():
        torch.testing.assert_close(model.network(image), network(image), rtol=1e-5, atol=1e-5)
    for key, value in network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(model.network.state_dict()[key], value)


def test_half_precision_takes_half_the_space_and_gives_nearly_the_same_answer(tmp_path: Path) -> None:
    network, image = nano(3), torch.rand(1, 3, 40, 56)
    whole, half = (save_model(network, CARD, tmp_path / str(half), half) for half in (False, True))
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    with torch.no_grad():
        expected = network(image)
        error = (load_model(half).network(image) - expected).abs().max()
    assert 0 < error < 0.01 * expected.abs().max()


def test_numbers_beyond_half_precision_survive(tmp_path: Path) -> None:
    network = nano(3)
    network.encoder.stem[0][1].running_var.fill_(1e6)
    path = save_model(network, CARD, tmp_path / "model", half=True)
    assert torch.equal(load_model(path).network.encoder.stem[0][1].running_var, torch.full((16,), 1e6))


def test_saving_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = nano(3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    save_model(network, CARD, tmp_path / "model")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_folder_of_a_run_is_loaded_by_its_name(saved: Path) -> None:
    assert load_model(saved.parent).card == load_model(str(saved)).card == CARD


def test_no_model_of_that_name(tmp_path: Path) -> None:
    close = next(iter(bundled()))[:-1]
    assert f"no model '{close}'; did you mean '{close}" in sentence(close)
    assert "give a .safetensors file, the folder of a run or of AdaptiveModel.save_pretrained" in sentence(
        tmp_path / "missing.safetensors"
    )
    assert f"no model '{tmp_path}'" in sentence(tmp_path)
    assert "no model ''" in sentence("")


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, -1])
def test_truncated_weights(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    assert sentence(saved).startswith(f"{saved}: damaged, or no weights of a model (")


def test_weights_that_are_something_else(saved: Path) -> None:
    for content in (b"\x89PNG\r\n\x1a\n" * 30, b"\xff" * 100, b"{}" * 50):
        saved.write_bytes(content)
        assert sentence(saved).startswith(f"{saved}: damaged, or no weights of a model (")


def test_no_card(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    assert sentence(saved) == f"{saved}: its card model.json is missing beside it"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"[1, 2]",
        b"3",
        b"null",
        b"{}",
        b"\xff\xfe\x00garbage",
        b'{"network": "swiftnet_nano"',
    ],
)
def test_a_card_that_is_none(saved: Path, content: bytes) -> None:
    saved.with_suffix(".json").write_bytes(content)
    assert sentence(saved).startswith(f"{saved.with_suffix('.json')}: no model card (")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "swiftnet_rn99"}, "network 'swiftnet_rn99' is unknown; known: swiftnet_rn18, "),
        ({"network": ["swiftnet_nano"]}, "(network is ['swiftnet_nano']: input should be a valid string)"),
        ({"network": None}, "(network is None: input should be a valid string)"),
        ({"classes": []}, "no model card (it names no classes)"),
        ({"classes": None}, "no model card ("),
        ({"palette": 3}, "no model card ("),
        ({"colour": "blue"}, "no model card ("),
        (
            {"classes": ["a", "b"], "palette": [[0, 0, 0]] * 2},
            "damaged, or of another network (Error(s) in loading state_dict",
        ),
        ({"network": "swiftnet_rn18"}, "damaged, or of another network ("),
    ],
)
def test_a_card_that_does_not_fit(saved: Path, changes: dict[str, Any], message: str) -> None:
    change_card(saved, **changes)
    assert message in sentence(saved)


def test_foreign_weights(saved: Path) -> None:
    save_file({"layer.weight": torch.zeros(3)}, saved)
    assert "does not fit swiftnet_nano; missing [" in sentence(saved)


def test_weights_with_something_more_or_less(saved: Path) -> None:
    state = load_file(saved)
    save_file(state | {"extra": torch.zeros(1)}, saved)
    assert "missing [], unexpected ['extra']" in sentence(saved)
    key = state.popitem()[0]
    save_file(state, saved)
    assert f"missing ['{key}'], unexpected []" in sentence(saved)


@pytest.mark.parametrize("name", bundled())
def test_bundled_models_load_and_answer(name: str) -> None:
    model = load_model(name)
    assert len(model.card.palette) == len(model.card.classes)
    with torch.no_grad():
        logits = model.network(torch.rand(1, 3, 48, 64))
    assert logits.shape == (
        1,
        len(model.card.classes),
        48 // model.network.stride,
        64 // model.network.stride,
    )
    assert bool(logits.isfinite().all())
    assert model.card.tile % model.network.coarsest_stride == 0


# With a policy network


def with_policy(folder: Path, half: bool = False) -> tuple[PolicyNet, Path]:
    """Save a small network with a policy network of random weights."""
    net = shaken(PolicyNet(64, 8, 4)).eval()
    card = replace(CARD, tile=32)
    return net, save_model(nano(3), card, folder / "model", half, parts={"policy": net})


def test_a_policy_network_is_saved_with_its_network_and_plans_alike(tmp_path: Path) -> None:
    net, path = with_policy(tmp_path)
    model = load_model(path)
    policy = model.part(PolicyNet)
    assert policy is not None and not policy.training
    assert model.card.parts == {"policy": {"block": 64, "width": 8, "depth": 4}}
    for key, value in net.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(policy.state_dict()[key], value)
    view = View(torch.rand(2, 3, 300, 200))
    for budget in (None, 0.5, 0.8):
        plans = [Learned(x, 32, budget)(view).levels for x in (net, policy)]
        assert torch.equal(*plans)


def test_a_loaded_policy_network_knows_its_share_of_the_work(tmp_path: Path) -> None:
    model, image = load_model(with_policy(tmp_path)[1]), torch.rand(1, 3, 256, 384)
    ours, theirs = (
        count_macs(lambda net=net: net(image)).total for net in (model.parts["policy"], model.network)
    )
    shares = [load_model(tmp_path / "model.safetensors").parts["policy"].share for _ in range(2)]
    assert model.parts["policy"].share == pytest.approx(ours / theirs, rel=0.01)
    assert shares == [model.parts["policy"].share] * 2 and shares[0] > 0.005


@pytest.mark.parametrize(("block", "depth"), [(16, 3), (96, 4), (4080, 3), (4096, 10)])
def test_the_share_of_a_policy_network_takes_no_image_of_its_blocks(
    tmp_path: Path, block: int, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = PolicyNet(block, 2, depth).eval()
    if block < 4000:
        assert net.macs == count_macs(lambda: net(torch.rand(1, 3, block, block))).total
    path = save_model(nano(3), replace(CARD, tile=8), tmp_path / "model", parts={"policy": net})
    monkeypatch.delattr(PolicyNet, "forward")
    model = load_model(path)
    whole = count_macs(lambda: model.network(torch.rand(1, 3, 256, 256))).total
    share = model.parts["policy"].share
    assert share == pytest.approx(net.macs * 256**2 / (block**2 * whole))


def test_a_policy_network_survives_half_precision(tmp_path: Path) -> None:
    net, path = with_policy(tmp_path, half=True)
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(load_model(path).parts["policy"](image), net(image), rtol=0.02, atol=0.02)


def test_a_policy_network_on_the_card_or_in_the_file_alone_is_refused(saved: Path, tmp_path: Path) -> None:
    change_card(saved, parts={"policy": {"block": 64}})
    assert sentence(saved) == (
        f"{saved}: the file lacks the weights of a policy network that its card has; give the two files that "
        "were saved together"
    )
    path = with_policy(tmp_path / "other")[1]
    change_card(path, parts={})
    assert "the file holds the weights of a policy network that its card lacks; give the two" in sentence(
        path
    )


def test_some_weights_of_a_policy_network_are_missing(tmp_path: Path) -> None:
    path = with_policy(tmp_path)[1]
    state = load_file(path)
    del state["policy.layers.9.bias"]
    save_file(state, path)
    assert "missing ['policy.layers.9.bias'], unexpected []" in sentence(path)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (3, "(it is 3: input should be an object)"),
        ({"blok": 64}, "give some of the keys block, width and depth"),
        ({"block": "64"}, "(block is '64': input should be a valid integer)"),
        ({"block": 64.0}, "(block is 64.0: input should be a valid integer)"),
        ({"block": 50}, "a policy network of 4 layers, width 64 and block 50 px cannot be"),
        ({}, "give some of the keys block"),
        ({"block": 64, "width": 16}, "damaged, or of another network (Error(s) in loading state_dict"),
    ],
)
def test_a_policy_network_that_cannot_be_or_does_not_fit(
    tmp_path: Path, policy: object, message: str
) -> None:
    path = with_policy(tmp_path)[1]
    change_card(path, parts={"policy": policy})
    assert message in sentence(path)


def test_parts_that_are_unknown_are_refused(saved: Path) -> None:
    change_card(saved, parts={"soul": {"size": 1}})
    assert "part 'soul' is unknown; known: policy, gate, exits" in sentence(saved)


def test_cards_from_before_parts_had_a_key_are_read(tmp_path: Path) -> None:
    path = with_policy(tmp_path)[1]
    card = json.loads(path.with_suffix(".json").read_text())
    described = card.pop("parts")
    path.with_suffix(".json").write_text(json.dumps(card | described | {"exits": [], "gate": {}}))
    assert load_model(path).card.parts == described
