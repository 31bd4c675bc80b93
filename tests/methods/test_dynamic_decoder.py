"""The dynamic decoder: what it refines, what that costs, and that the rest of the network does not run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from commands import parsed, refused, run
from conformance import CLASSES, answer, assert_close
from foveal.calibration.engine import find_engine
from foveal.cost import count_macs
from foveal.data import synthetic as street
from foveal.data.image import save_image
from foveal.data.pairs import default_palette
from foveal.decoders import Decoder, PointDecoder, usual_places
from foveal.exits import Stages
from foveal.fusion import fuse
from foveal.hub.card import Card
from foveal.hub.checkpoint import load_model, save_model
from foveal.methods import Aim, DynamicDecoder, DynamicDecoderConfig
from foveal.methods.dynamic_decoder import DynamicDecoderTraining
from foveal.training.config import read_recipe
from samples import error_of, ladder, lively, nano, write_folder

SIZE = (150, 212)
WIDTHS = {"nrd": 8, "points": 40}
Kind = Literal["nrd", "points"]


@pytest.fixture(params=["nrd", "points"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, *SIZE)


def decoder(network: nn.Module, kind: Kind) -> Decoder:
    """Make a decoder that says different things at different places."""
    made = Decoder.of(Stages(network, usual_places(network)), kind, WIDTHS[kind], seed=1).eval()
    with torch.no_grad():
        made.coarse.classify.weight.mul_(10)
        if not isinstance(made.head, PointDecoder):
            nn.init.normal_(made.head.controller[-1].weight, std=0.3)
    return made


def method(network: nn.Module, kind: Kind, **settings: object) -> DynamicDecoder:
    config = DynamicDecoderConfig(**settings)  # type: ignore[arg-type]
    return DynamicDecoder(network, config, decoder(network, kind)).eval()


# All laws hold for the decoder that methods have by themselves; here for both kinds


def test_a_budget_that_pays_for_all_places_refines_all(kind: Kind, image: Tensor) -> None:
    network = ladder(CLASSES)
    most = method(network, kind).most_work(SIZE)
    assert most < 1
    made = method(network, kind, budget=most + 1e-6, doublings=1)
    found = answer(made, image)
    with torch.no_grad():
        assert_close(found.logits, made.everywhere(image))
        assert not torch.allclose(found.logits, network(image))
    assert found.trace.work.tolist() == pytest.approx([most] * 2)
    assert answer(
        method(network, kind, budget=0.999, doublings=1), image
    ).trace.work.tolist() == pytest.approx([most] * 2)


def test_the_whole_budget_is_the_network_itself(kind: Kind, image: Tensor) -> None:
    network = lively(nano(CLASSES), image[0])
    made = method(network, kind, budget=1.0)
    found = answer(made, image)
    with torch.no_grad():
        assert torch.equal(found.logits, network(image))
    assert [step.name for step in found.trace.steps] == ["network"]


def test_the_least_budget_is_the_coarse_answer(kind: Kind, image: Tensor) -> None:
    network = ladder(CLASSES)
    least = method(network, kind).least
    made = method(network, kind, budget=least)
    first, second = (p for p in iterated(made, image))
    assert torch.equal(first.trace.work, second.trace.work)
    assert first.trace.work.tolist() == pytest.approx([least] * 2)
    assert_close(
        first.logits, second.logits, 0.2
    )  # points double the answer twice, and it is enlarged at once
    assert kind == "points" or torch.equal(first.logits, second.logits)
    assert "raise the budget" in error_of(lambda: answer(method(network, kind, budget=least - 1e-3), image))


@torch.no_grad()
def iterated(made: DynamicDecoder, image: Tensor) -> list:  # type: ignore[type-arg]
    return list(made.stream(image))


@pytest.mark.parametrize("budget", [0.2, 0.25, 0.3, 0.6])
@pytest.mark.parametrize("joined", [False, True], ids=["plain", "fused"])
def test_counted_macs_are_those_of_the_trace(kind: Kind, joined: bool, budget: float) -> None:
    """What the network's own decoder would compute is not among them."""
    network, image = ladder(CLASSES), torch.rand(2, 3, 128, 192)
    network = fuse(network) if joined else network
    made = method(network, kind, budget=budget)
    macs, dense = (count_macs(lambda run=run: run(image)) for run in (made, network))
    share = (macs.convolution + macs.product) / (dense.convolution + dense.product)
    assert share == pytest.approx(float(answer(made, image).trace.work.mean()), abs=1e-9)
    assert share <= budget


def test_budgets_are_spent_to_one_place(kind: Kind, image: Tensor) -> None:
    network = ladder(CLASSES)
    made = method(network, kind, budget=0.17)
    place = made.place_macs / (made.stages.macs_per_pixel * SIZE[0] * SIZE[1])
    assert made.most_work(SIZE) > 0.17
    work = answer(made, image).trace.work
    assert bool((work <= 0.17 + 1e-9).all()) and bool((work > 0.17 - place).all())


def test_nearer_to_the_decoder_everywhere_with_more_work(kind: Kind, image: Tensor) -> None:
    network = ladder(CLASSES)
    full = method(network, kind).most_work(SIZE)
    least, off = method(network, kind).least, []
    for share in (0.0, 0.3, 0.6, 0.9, 1.0):
        made = method(network, kind, budget=least + share * (full - least) + 1e-9, doublings=1)
        with torch.no_grad():
            off.append(float((made(image).logits - made.everywhere(image)).abs().mean()))
    assert all(more > less for more, less in pairwise(off)) and off[-1] < 1e-5


def test_the_uncertain_places_are_refined(kind: Kind, image: Tensor) -> None:
    network = ladder(CLASSES)
    made = method(network, kind, budget=0.2, doublings=1)
    found = answer(made, image)
    coarse = iterated(made, image)[0].logits if kind == "nrd" else doubled(made, image)
    side = made.stages.places[1].stride // 4 if kind == "nrd" else 1
    changed = (found.logits != coarse).any(1)
    top = coarse.topk(2, 1).values
    ratio = (top[:, 1] - top[:, 0]).exp()
    ratio = ratio[:, : SIZE[0] // 4 // side * side, : SIZE[1] // 4 // side * side]
    score = nn.functional.avg_pool2d(ratio[:, None], side)[:, 0]
    marked = nn.functional.max_pool2d(changed[:, None].float(), side)[:, 0].bool()
    marked = marked[:, : score.shape[1], : score.shape[2]]
    for scores, there in zip(score, marked, strict=True):
        assert 0 < int(there.sum()) < there.numel()
        assert float(scores[there].min()) >= float(scores[~there].max()) - 1e-6


def doubled(made: DynamicDecoder, image: Tensor) -> Tensor:
    with torch.no_grad():
        maps = made.maps(image)
    return list(made.decoder.head.stream(maps, 0, lambda a, s: a, 1))[-1][0]


def test_images_alone_and_again_get_the_same(kind: Kind, image: Tensor) -> None:
    for policy in ("logit_margin", "random", "weighted_entropy"):
        made = method(ladder(CLASSES), kind, budget=0.25, policy=policy)
        together = answer(made, image)
        assert torch.equal(answer(made, image).logits, together.logits)
        for n in range(2):
            assert_close(answer(made, image[n : n + 1]).logits[0], together.logits[n])


def test_policies_choose_different_places(kind: Kind, image: Tensor) -> None:
    network = ladder(CLASSES)
    one, other = (
        answer(method(network, kind, budget=0.25, policy=p), image) for p in ("logit_margin", "random")
    )
    assert torch.equal(one.trace.work, other.trace.work) and not torch.allclose(one.logits, other.logits)
    with pytest.raises(ValueError, match="no policy with a score named 'oracle'"):
        DynamicDecoderConfig(policy="oracle")


@pytest.mark.parametrize("size", [(1, 1), (1, 97), (97, 1), (31, 33), (3, 5)])
def test_any_size_comes_back(kind: Kind, size: tuple[int, int]) -> None:
    made = method(ladder(CLASSES), kind, budget=0.5)
    image = torch.rand(1, 3, *size)
    assert answer(made, image).labels.shape == (1, *size)
    with torch.no_grad():
        assert made.everywhere(image).shape[2:] == answer(made, image).logits.shape[2:]


def test_the_coarse_map_may_be_one_of_the_networks_decoder(image: Tensor) -> None:
    """Its last step, at stride 4, is what points replace; layers and programs agree."""
    network = lively(nano(CLASSES), image[0])
    stages = Stages(network, ("encoder.stem", "head.blend.1"), anywhere=True)
    part = Decoder.of(stages, "points", 16).eval()
    assert part.config.ratio == 2
    early = method(network, "points")
    made = DynamicDecoder(network, DynamicDecoderConfig(0.75), part).eval()
    assert early.least < made.least < 0.75
    found = answer(made, image)
    program = DynamicDecoder(fuse(network), DynamicDecoderConfig(0.75), part).eval()
    program.compile()
    off = (answer(program, image).logits - found.logits).abs().amax(1)
    assert float((off > 1e-3 * found.logits.abs().max()).float().mean()) < 0.01
    macs, dense = (count_macs(lambda run=run: run(image)) for run in (made, network))
    share = (macs.convolution + macs.product) / (dense.convolution + dense.product)
    assert share == pytest.approx(float(found.trace.work.mean()), abs=0.02)  # sides are no multiples of 8


# Training


def trained(kind: Kind, frozen: bool = False) -> DynamicDecoder:
    part = DynamicDecoderTraining(name="dynamic_decoder", kind=kind, frozen=frozen, points=64)
    return DynamicDecoder.for_training(nano(CLASSES), part, Aim())


def test_the_loss_reaches_network_and_decoder(kind: Kind) -> None:
    made = trained(kind).train()
    target = torch.randint(0, CLASSES, (2, 96, 96))
    losses = made.loss(torch.rand(2, 3, 96, 96), target)
    assert set(losses) == {"coarse", "patches" if kind == "nrd" else "points", "final"}
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name
    void = made.loss(torch.rand(1, 3, 64, 64), torch.full((1, 64, 64), 255))
    assert all(float(loss.detach()) == 0 for loss in void.values())


def test_on_a_frozen_network_only_the_decoder_learns(kind: Kind) -> None:
    made = trained(kind, frozen=True).train()
    made.network.eval()
    before = {name: x.clone() for name, x in made.network.state_dict().items()}
    losses = made.loss(torch.rand(2, 3, 64, 64), torch.randint(0, CLASSES, (2, 64, 64)))
    assert "final" not in losses
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in made.network.parameters())
    assert all(p.grad is not None for p in made.decoder.parameters())
    assert all(torch.equal(x, before[name]) for name, x in made.network.state_dict().items())


def test_a_decoder_learns_what_its_labels_say(kind: Kind) -> None:
    """Halves of a patch have different classes, which the coarse answer cannot tell apart."""
    torch.manual_seed(0)
    made = trained(kind, frozen=True).train()
    made.network.eval()
    image = torch.where(torch.arange(64) % 16 < 8, 0.9, 0.1).expand(2, 3, 64, 64).contiguous()
    target = (torch.arange(64) % 16 < 8).long().expand(2, 64, 64).contiguous()
    optimiser = torch.optim.Adam(made.decoder.parameters(), 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        losses = made.loss(image, target)
        sum(losses.values()).backward()  # type: ignore[union-attr]
        optimiser.step()
    made.eval()
    with torch.no_grad():
        right = nn.functional.interpolate(made.everywhere(image), (64, 64)).argmax(1) == target
    assert float(right.float().mean()) > 0.85
    assert float(losses["coarse"].detach()) > 0.1


# Files and commands


def saved(path: Path, kind: Kind, classes: Sequence[str] = "abcde") -> tuple[nn.Module, Decoder, Path]:
    network = lively(nano(len(classes)), torch.rand(3, *SIZE)).to(memory_format=torch.channels_last)
    made = decoder(network, kind)
    card = Card("swiftnet_nano", tuple(classes), default_palette(len(classes)))
    return network, made, save_model(network, card, path / "model", parts={"decoder": made})


def test_a_decoder_is_saved_with_its_network(kind: Kind, tmp_path: Path, image: Tensor) -> None:
    network, made, path = saved(tmp_path, kind)
    loaded = load_model(path)
    held = loaded.part(Decoder)
    assert held is not None and held.config == made.config
    config = DynamicDecoderConfig(0.6)
    theirs = answer(DynamicDecoder(network, config, made).eval(), image).logits
    ours = DynamicDecoder.from_config(loaded.network, config, loaded.resources).eval()
    assert torch.equal(answer(ours, image).logits, theirs)
    joined = DynamicDecoder.from_config(fuse(loaded.network), config, loaded.resources).eval()
    off = (answer(joined, image).logits - theirs).abs().amax(1)
    assert float((off > 1e-3 * theirs.abs().max()).float().mean()) < 0.01  # of nearly equal scores


def test_commands_run_both(kind: Kind, tmp_path: Path) -> None:
    _, _, path = saved(tmp_path, kind, street.CLASSES)
    data = write_folder(tmp_path / "data", 2, SIZE)
    save_image(torch.rand(3, *SIZE), tmp_path / "shot.png")
    asked = ("--method", "dynamic_decoder", "--budget", 0.6)
    call = ("evaluate", path, "--data", f"folder:{data}", *asked, "--timed", 0, "--json")
    dense, row = parsed(run(*call))
    assert row["method"] == "dynamic_decoder" and 0 < row["work"] <= 0.6 and 0 < row["macs"] < dense["macs"]
    shot = ("segment", tmp_path / "shot.png", "--model", path, *asked)
    seen = parsed(run(*shot, "--out", tmp_path / "out", "--json", "--always-adapt"))
    assert 0 < seen["work"] < 0.6 and all(Path(file).is_file() for file in seen["files"].values())


def test_what_was_not_trained_is_refused(tmp_path: Path) -> None:
    card = Card("swiftnet_nano", ("a", "b", "c"), default_palette(3))
    plain = save_model(nano(3), card, tmp_path / "plain")
    save_image(torch.rand(3, 64, 96), tmp_path / "shot.png")
    asked = ("--model", plain, "--method", "dynamic_decoder", "--out", tmp_path)
    said = refused(run("segment", tmp_path / "shot.png", *asked))
    assert (
        "has no decoder, which" in said
        and "train the network with a recipe of method dynamic_decoder" in said
    )


def test_a_recipe_trains_one_and_its_file_runs(kind: Kind, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 3, (64, 96))
    part = '[model]\nname = "swiftnet_nano"\n[method]\nname = "dynamic_decoder"\nfrozen = true\n'
    part += f'kind = "{kind}"\nwidth = 16\npoints = 32\n[train]\nsteps = 2\nbatch = 2\n'
    part += f'[data]\ntrain = "folder:{data}"\nsplit = "test"\ncrop = [64, 64]\n'
    (tmp_path / "recipe.toml").write_text(part)
    run("train", tmp_path / "recipe.toml", "--run", tmp_path / "run")
    held = load_model(tmp_path / "run").part(Decoder)
    assert held is not None and (held.config.kind, held.config.width) == (kind, 16)


@pytest.mark.parametrize("name", ["camvid_rn18_nrd", "camvid_rn18_points", "camvid_rn18_points_s8"])
def test_recipes_are_recipes(name: str) -> None:
    recipe = read_recipe(Path(__file__).parents[2] / "recipes" / "decoders" / f"{name}.toml")
    assert recipe.method.name == "dynamic_decoder" and recipe.method.freezes_network


# As parts of a program


@pytest.mark.parametrize("name", ["nano", "ladder"])
def test_a_program_runs_the_network_up_to_the_coarse_answer(kind: Kind, name: str) -> None:
    """Everything in between and after is the same; scores that are nearly equal may swap places."""
    torch.manual_seed(0)
    network = lively(nano(CLASSES) if name == "nano" else ladder(CLASSES), torch.rand(3, *SIZE))
    part, fused, image = decoder(network, kind), fuse(network), torch.rand(2, 3, *SIZE)
    layers = DynamicDecoder(fused, DynamicDecoderConfig(0.6), part).eval()
    program = DynamicDecoder(fused, DynamicDecoderConfig(0.6), part).eval()
    program.compile()
    assert program.compiled is not None
    with torch.no_grad():
        ours, theirs = program.everywhere(image), layers.everywhere(image)
        assert_close(ours, theirs, 1e-4)
        found, expected = program(image), layers(image)
        off = (found.logits - expected.logits).abs().amax(1) > 1e-3 * float(theirs.abs().max())
        assert float(off.float().mean()) < 0.01
    assert torch.equal(found.trace.work, expected.trace.work)
    macs, counted = (count_macs(lambda made=made: made(image)).total for made in (program, layers))
    assert macs == pytest.approx(counted, rel=0.002)
    layers.budget = program.budget = 1.0
    with torch.no_grad():
        assert_close(program(image).logits, layers(image).logits, 1e-4)


def test_an_engine_makes_it_a_program(kind: Kind, tmp_path: Path, image: Tensor) -> None:
    model = load_model(saved(tmp_path, kind)[2])
    engine = find_engine(model)
    made = engine.make("dynamic_decoder", DynamicDecoderConfig(0.6), model.resources)
    assert isinstance(made, DynamicDecoder) and made.compiled is not None
    shrunk = engine.make("dynamic_decoder", DynamicDecoderConfig(0.5, scale=0.8), model.resources)
    assert 0.3 < float(answer(shrunk, image).trace.work.max()) <= 0.5
