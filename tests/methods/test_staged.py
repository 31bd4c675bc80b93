"""Layer Cascade and MESS: what leaves a network early, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import foveal
from commands import parsed, refused, run
from conformance import CLASSES, answer, assert_close
from foveal.cost import count_macs
from foveal.data import synthetic as street
from foveal.data.image import save_image
from foveal.data.pairs import default_palette
from foveal.exits import ExitConfig, Exits, Stages
from foveal.fusion import fuse
from foveal.geometry.plan import grid
from foveal.hub.card import Card, CheckpointError
from foveal.hub.checkpoint import load_model, save_model
from foveal.methods import Aim, LayerCascade, LayerCascadeConfig, Mess, MessConfig
from foveal.methods.layer_cascade import LayerCascadeTraining
from foveal.methods.mess import MessTraining
from foveal.objectives.segmentation import filtered_divergence
from samples import lively, nano, tower, write_folder

SIZE = (192, 256)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, *SIZE)


@pytest.fixture
def network(image: Tensor) -> nn.Module:
    return lively(nano(CLASSES), image[0])


def cascade(network: nn.Module, **settings: object) -> LayerCascade:
    return LayerCascade(network, LayerCascadeConfig(**settings)).eval()  # type: ignore[arg-type]


def mess(network: nn.Module, **settings: object) -> Mess:
    return Mess(network, MessConfig(**settings)).eval()  # type: ignore[arg-type]


def cheapest(method: LayerCascade | Mess, image: Tensor) -> Tensor:
    """Return what the first exit says, at the finest stride."""
    with torch.no_grad():
        values = method.stages.run(0, method.stages.start(image))
        logits = method.heads[0](method.stages.at(0, values))
        return method.enlarged(logits, method.stages.places[0].stride, SIZE)


# Both ends


@pytest.mark.parametrize("make", [cascade, mess])
def test_threshold_1_is_the_dense_network_and_0_its_first_exit(make, network, image) -> None:  # type: ignore[no-untyped-def]
    with torch.no_grad():
        assert_close(answer(make(network, budget=1.0, threshold=1.0), image).logits, network(image))
    none = make(network, budget=1.0, threshold=0.0)
    found = answer(none, image)
    assert_close(found.logits, cheapest(none, image), 1e-4)
    assert found.trace.work.tolist() == pytest.approx([none.shares[0] + none.head_shares[0]] * 2)


@pytest.mark.parametrize("make", [cascade, mess])
def test_work_falls_with_the_threshold(make, network, image) -> None:  # type: ignore[no-untyped-def]
    works = [
        float(answer(make(network, budget=1.0, threshold=t), image).trace.work.mean())
        for t in (0.0, 0.3, 0.4, 0.6, 0.9, 1.0)
    ]
    assert all(less <= more + 1e-9 for less, more in pairwise(works[:-1]))
    assert works[0] < works[-2] and works[-1] == 1  # exits that nothing leaves at cost, and 1 asks none


# Layer Cascade


def test_tiles_that_go_on_are_those_of_the_highest_score(network: nn.Module, image: Tensor) -> None:
    method = cascade(network, budget=0.6, settled="vanish")
    plan = method.decide(image)
    early = cheapest(method, image)
    log = early.log_softmax(1)
    probability, entropy = log.exp(), -(log.exp() * log).sum(1)
    rarity = (1 / CLASSES / probability.mean((2, 3), keepdim=True).clamp(min=1e-4)).sqrt()
    score = nn.functional.avg_pool2d((entropy * (probability * rarity).sum(1))[:, None], 32 // 4)[:, 0]
    for levels, scores in zip(plan.levels, score, strict=True):
        open_here = levels == 0
        assert 0 < int(open_here.sum()) < open_here.numel()
        assert float(scores[open_here].min()) >= float(scores[~open_here].max()) - 1e-5


def test_what_is_settled_keeps_the_answer_of_its_exit(network: nn.Module, image: Tensor) -> None:
    method = cascade(network, budget=0.6)
    passes = [p for p in iter_answers(method, image)]
    assert len(passes) == 3
    for before, after in pairwise(passes):
        assert after.trace.levels is not None and before.trace.levels is not None
        kept = after.trace.levels == before.trace.levels
        there = kept.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand_as(after.logits)
        assert torch.equal(after.logits[there], before.logits[there])
        assert not torch.equal(after.logits[~there], before.logits[~there])
    assert passes[-1].trace.levels.unique().tolist() == [0, 1, 2]  # type: ignore[union-attr]


@torch.no_grad()
def iter_answers(method: LayerCascade | Mess, image: Tensor) -> list:  # type: ignore[type-arg]
    return list(method.stream(image))


def test_what_is_settled_lends_its_borders(network: nn.Module, image: Tensor) -> None:
    """Open tiles are nearer to the dense answer where settled places go on at a coarse level."""
    with torch.no_grad():
        dense = network(image)
    off = []
    for settled in ("coarse", "vanish"):
        method = cascade(network, budget=0.9, threshold=0.45, settled=settled, pass_on=1.0)
        found = answer(method, image)
        assert found.trace.levels is not None and {0, 2} <= set(found.trace.levels.unique().tolist())
        there = (found.trace.levels == 0).repeat_interleave(8, 1).repeat_interleave(8, 2)
        off.append(float((found.logits - dense).abs().amax(1)[there].mean()))
    assert off[0] < off[1]


@pytest.mark.parametrize("how", [{"coarse_level": 2}, {"coarse_level": 1}, {"settled": "vanish"}], ids=str)
def test_counted_macs_are_those_of_the_steps(how: dict[str, object]) -> None:
    network, image = tower(CLASSES), torch.rand(1, 3, 192, 256)
    method = cascade(network, budget=0.5, tile=16, **how)
    spent = count_macs(lambda: method(image)).convolution
    dense = count_macs(lambda: network(image)).convolution
    assert spent / dense == pytest.approx(float(answer(method, image).trace.work[0]), abs=1e-6)
    assert 0.25 < spent / dense <= 0.5 + 16**2 / (192 * 256)


def test_a_budget_below_the_first_exit_is_refused(network: nn.Module, image: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"budget is 0.05 and the first stage with its exit takes 0\.2.*raise"
    ):
        answer(cascade(network, budget=0.05), image)
    with pytest.raises(ValueError, match=r"budget is 0.05 and the first exit takes 0\.2.*raise"):
        answer(mess(network, budget=0.05), image)


def test_a_mask_leaves_places_out_of_every_stage(network: nn.Module, image: Tensor) -> None:
    wanted = torch.zeros(2, *grid(SIZE, 32), dtype=torch.bool)
    wanted[:, 1:5, 1:6] = True
    method = cascade(network, budget=0.3, threshold=0.999)
    with torch.no_grad():
        found = method.masked(image, wanted)
    levels = found.trace.levels
    assert levels is not None and bool(((levels >= 0) == wanted).all())
    assert float(found.trace.work.max()) <= float(wanted[0].double().mean()) + 1e-9


# MESS


def test_a_budget_is_the_deepest_exit_that_it_pays_for(network: nn.Module, image: Tensor) -> None:
    works = [mess(network).work_of([k]) for k in range(3)]
    assert works == sorted(works) and works[2] == pytest.approx(1)
    for stage, work in enumerate(works[:2]):
        method = mess(network, budget=work + 0.01)
        assert answer(method, image).trace.work.tolist() == pytest.approx([work] * 2), stage
        spent = count_macs(lambda m=method: m(image)).convolution
        assert spent / count_macs(lambda: network(image)).convolution == pytest.approx(work, abs=0.01)


def test_images_leave_one_by_one(network: nn.Module) -> None:
    """A flat image leaves, a busy one stays; each gets the answer that it gets alone."""
    images = torch.stack([torch.full((3, *SIZE), 0.4), torch.rand(3, *SIZE)])
    free = mess(network, budget=1.0, threshold=0.5)
    pixel = float(cheapest(free, images).softmax(1).amax(1).median())
    with torch.no_grad():
        sure = mess(network, pixel_threshold=pixel).confidence(cheapest(free, images))
    assert float(sure[0]) != float(sure[1])
    settings = {"pixel_threshold": pixel, "threshold": float(sure.mean()), "exits": "1"}
    method = mess(network, budget=1.0, **settings)
    found = answer(method, images)
    assert sorted(found.trace.work.tolist()) == pytest.approx([method.work_of([0]), method.work_of([0, 2])])
    alone = [answer(method, image[None]) for image in images]
    assert_close(found.logits, torch.cat([p.logits for p in alone]))
    assert found.trace.work.tolist() == pytest.approx([float(p.trace.work) for p in alone])


def test_pixels_beside_edges_weigh_as_they_are_told(network: nn.Module) -> None:
    logits = torch.zeros(1, CLASSES, 16, 32)
    logits[:, 0, :, :16], logits[:, 1, :, 16:] = 9.0, 9.0
    logits[:, :, :, 14:18] /= 20  # the answer is unsure along its edge
    plain, lenient, strict = (float(mess(network, edge_weight=w).confidence(logits)) for w in (1.0, 0.0, 3.0))
    assert plain == pytest.approx(28 / 32) and lenient == 1.0 and strict < plain


@pytest.mark.parametrize("text", ["0", "3", "1,1", "one", "1,,2"])
def test_numbers_of_exits_are_checked(text: str, network: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"exits is {text}; give numbers of exits from 1 to 2"):
        mess(network, exits=text)


# Training


def test_on_a_frozen_network_only_the_heads_learn() -> None:
    network = nano(CLASSES).train()
    before = {name: x.clone() for name, x in network.state_dict().items()}
    method = Mess.for_training(network, MessTraining(name="mess", frozen=True), Aim()).train()
    network.eval()
    losses = method.loss(torch.rand(2, 3, 64, 64), torch.randint(0, CLASSES, (2, 64, 64)))
    assert set(losses) == {"exit_1", "exit_2"}
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is not None for p in method.exits.parameters())
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())


def test_later_stages_do_not_learn_from_what_is_settled() -> None:
    method = LayerCascade.for_training(nano(CLASSES), LayerCascadeTraining(name="layer_cascade"), Aim())
    image, target = torch.rand(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.long)
    with torch.no_grad():
        for head in method.exits:
            head.classify.bias[0] = 50.0  # sure of class 0 everywhere
    losses = {name: float(loss.detach()) for name, loss in method.loss(image, target).items()}
    assert losses["exit_2"] == 0 and losses["final"] == 0 and losses["exit_1"] < 1e-6


def test_the_end_teaches_where_it_is_right() -> None:
    logits, teacher = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    target = teacher.argmax(1)
    target[0, :4] = (target[0, :4] + 1) % 3  # there it is wrong
    log, goal = logits.log_softmax(1), teacher.log_softmax(1)
    apart = (goal.exp() * (goal - log)).sum(1)
    assert float(filtered_divergence(logits, teacher, target)) == pytest.approx(
        float(apart[0, 4:].sum()) / 64
    )
    assert float(filtered_divergence(logits, teacher, torch.full_like(target, 255))) == 0


# Files and commands


def saved(path: Path, classes: Sequence[str] = "abcde") -> tuple[nn.Module, Exits, Path]:
    network = lively(nano(len(classes)), torch.rand(3, *SIZE))
    places = ["encoder.stages.0", "encoder"]  # of 32 and 112 channels
    exits = Exits.of(Stages(network, places), ExitConfig("", width=16), seed=5)
    palette = default_palette(len(classes))
    card = Card("swiftnet_nano", tuple(classes), palette)
    return network, exits, save_model(network, card, path / "model", parts={"exits": exits})


def test_exits_are_saved_with_the_network(tmp_path: Path, image: Tensor) -> None:
    network, exits, path = saved(tmp_path)
    loaded = load_model(path)
    held = loaded.part(Exits)
    assert held is not None and held.configs == exits.configs
    ours = LayerCascade.from_config(loaded.network, LayerCascadeConfig(0.5), loaded.resources).eval()
    theirs = LayerCascade(network, LayerCascadeConfig(0.5), exits.eval()).eval()
    assert torch.equal(answer(ours, image).logits, answer(theirs, image).logits)
    joined = LayerCascade.from_config(
        fuse(loaded.network), LayerCascadeConfig(1.0, threshold=0.0), loaded.resources
    )
    assert_close(answer(joined.eval(), image).logits, cheapest(theirs, image), 1e-4)


def test_a_file_without_the_heads_of_its_card_is_refused(tmp_path: Path) -> None:
    network, _, path = saved(tmp_path)
    card = path.with_suffix(".json").read_text()
    save_model(network, Card("swiftnet_nano", tuple("abcde"), default_palette(CLASSES)), path)
    path.with_suffix(".json").write_text(card)
    with pytest.raises(CheckpointError, match="lacks the weights of exits that its card has"):
        load_model(path)


def test_commands_run_both(tmp_path: Path) -> None:
    _, _, path = saved(tmp_path, street.CLASSES)
    data = write_folder(tmp_path / "data", 2, SIZE)
    save_image(torch.rand(3, *SIZE), tmp_path / "shot.png")
    for name, budget in (("layer_cascade", 0.6), ("mess", 0.4)):
        call = (
            "evaluate",
            path,
            "--data",
            f"folder:{data}",
            "--method",
            name,
            "--budget",
            budget,
            "--timed",
            0,
        )
        row = parsed(run(*call, "--json"))[-1]
        assert row["method"] == name and 0 < row["work"] <= budget + 32**2 / (SIZE[0] * SIZE[1])
        assert 0 < row["macs"] < parsed(run(*call, "--baseline", "--json"))[0]["macs"]
        shot = ("segment", tmp_path / "shot.png", "--model", path, "--method", name, "--budget", budget)
        seen = parsed(run(*shot, "--out", tmp_path / name, "--json", "--always-adapt"))
        assert 0 < seen["work"] < 1 and all(Path(file).is_file() for file in seen["files"].values())


def test_what_was_not_trained_is_refused(tmp_path: Path) -> None:
    """Heads with fresh weights would answer with noise."""
    plain = save_model(
        nano(3), Card("swiftnet_nano", ("a", "b", "c"), default_palette(3)), tmp_path / "plain"
    )
    save_image(torch.rand(3, 64, 96), tmp_path / "shot.png")
    for name in ("mess", "layer_cascade"):
        call = ("segment", tmp_path / "shot.png", "--model", plain, "--method", name, "--out", tmp_path)
        assert (
            f"plain has no exits, which {name} needs: train the network with a recipe of method {name}"
            in refused(run(*call))
        )
        with pytest.raises(ValueError, match=f"method {name} needs exits trained with the network"):
            foveal.adapt(nano(3), method=name)


@pytest.mark.parametrize("more", [("mess", ""), ("model_select", 'fusion = "gated"\n')])
def test_heads_and_gates_that_no_file_would_hold_are_not_trained(
    more: tuple[str, str], tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data", 2, (64, 96))
    name, rest = more
    text = f'[model]\nname = "foreign:UNet"\n[data]\ntrain = "folder:{data}"\nsplit = "test"\n'
    text += f'[method]\nname = "{name}"\n{rest}'
    (tmp_path / "recipe.toml").write_text(text)
    said = refused(run("train", tmp_path / "recipe.toml", "--run", tmp_path / "run"))
    assert f"what {name} trains beside the network is stored with architectures for colour images" in said
