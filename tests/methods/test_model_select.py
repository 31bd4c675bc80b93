"""Model selection: a small network everywhere, a large one where that is uncertain."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import foveal
from commands import CLASSES as NAMES
from commands import parsed, refused, run
from conformance import answer, assert_close
from foreign import Strided, UNet, picture
from foveal.calibration.engine import find_engine
from foveal.cost import count_macs
from foveal.data.pairs import default_palette
from foveal.geometry.plan import SKIP, grid
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model, load_model, save_model
from foveal.kernels import build
from foveal.methods import Aim, CompiledMethod, ModelSelect, ModelSelectConfig
from foveal.methods.model_select import ModelSelectTraining
from foveal.ops import classify, halve
from foveal.policies import AnswerGate
from samples import Scenes, error_of, headless, lively, nano, write_folder

SIZE, TILE = (160, 224), 16
CONTEXTS = [("skip", 1), ("skip", 0), ("coarse", 0), ("coarse", 1)]


def tiny(classes: int = 5) -> nn.Sequential:
    """A network of a few percent of the work of the large one, at the same stride."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU(), nn.Conv2d(4, classes, 3, padding=1)).eval()


def wide(classes: int = 5) -> nn.Sequential:
    """A network of stride 4 that sees 15 px around a sample, far more work than the tiny one."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(24, classes, 3, 1, 1),
    ).eval()


def shot(count: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(7))


def select(budget: float = 0.5, small: nn.Module | None = None, **wishes: object) -> ModelSelect:
    torch.manual_seed(3)
    image = shot(1)[0]
    net = lively(wide(), image)
    small = lively(tiny(), image) if small is None else small
    config = ModelSelectConfig(budget, **{"tile": TILE, "context": "skip", **wishes})  # type: ignore[arg-type]
    return ModelSelect(net, config, small).eval()


# Both ends


@pytest.mark.parametrize(("context", "margin"), CONTEXTS)
def test_nothing_looked_at_again_is_the_small_network(context: str, margin: int) -> None:
    method = select(0.5, context=context, margin_tiles=margin, threshold=1e9)
    found = answer(method, shot())
    with torch.no_grad():
        expected = method.small(shot())
    assert torch.equal(found.logits, expected.log_softmax(1))
    assert torch.equal(found.labels, classify(expected, SIZE))
    assert found.trace.work.tolist() == pytest.approx([method.least_work(SIZE)] * 2)
    assert bool((found.trace.levels == SKIP).all())


def test_a_small_network_may_see_the_reduced_image() -> None:
    method = select(0.5, small_level=1, threshold=1e9)
    with torch.no_grad():
        assert_close(
            answer(method, shot()).logits[..., ::2, ::2].mean(), answer(method, shot()).logits.mean(), 1
        )
        assert torch.equal(answer(method, shot()).logits, method.small(halve(shot(), 1)).log_softmax(1))
    assert method.least_work(SIZE) == pytest.approx(select(0.5).least_work(SIZE) / 4, rel=0.1)


@pytest.mark.parametrize("wishes", [{"budget": 1.0}, {"budget": 1.0, "threshold": 0.0}], ids=str)
def test_everything_is_the_large_network_and_the_small_one_is_not_asked(wishes: dict[str, float]) -> None:
    method = select(**wishes)
    found = answer(method, shot())
    with torch.no_grad():
        assert_close(found.logits, method.network(shot()))
    assert len(found.trace.steps) == 1
    assert count_macs(lambda: method(shot())).total == count_macs(lambda: method.network(shot())).total


def test_work_falls_as_the_threshold_rises() -> None:
    works = [
        float(answer(select(1.0, threshold=threshold), shot()).trace.work.mean())
        for threshold in (0.0, 0.4, 0.8, 1.0, 1.2, 2.0)
    ]
    assert works == sorted(works, reverse=True)
    assert works[0] > 0.99 and works[-1] < 0.2


# Budgets


@pytest.mark.parametrize("budget", [0.2, 0.4, 0.8])
@pytest.mark.parametrize("region", [1, 2, 3])
@pytest.mark.parametrize(("context", "margin"), CONTEXTS)
def test_the_budget_counts_both_networks(context: str, margin: int, region: int, budget: float) -> None:
    method = select(budget, context=context, margin_tiles=margin, region_tiles=region, coarse_level=2)
    work = answer(method, shot()).trace.work
    assert float(work.max()) <= budget
    spent, dense = (count_macs(lambda m=m: m(shot())).convolution for m in (method, method.network))
    assert spent / dense == pytest.approx(float(work.mean()), abs=0.005)
    assert spent <= (budget + 0.005) * dense


def test_single_tiles_use_the_budget_to_one_tile() -> None:
    for budget in (0.3, 0.55):
        work = answer(select(budget, margin_tiles=0), shot()).trace.work
        assert bool((work > budget - TILE**2 / prod(SIZE) - 1e-9).all())


def test_a_budget_below_the_small_network_is_refused() -> None:
    method = select(0.5, small=wide())
    text = error_of(lambda: answer(method, shot()))
    assert text.startswith("budget is 0.5 and the first answer alone takes 1 of the dense work; raise")
    assert method.least_work(SIZE) == pytest.approx(1.0)


def test_the_most_uncertain_regions_are_looked_at_again() -> None:
    method = select(0.4, margin_tiles=0)
    found = answer(method, shot(1))
    with torch.no_grad():
        log = method.small(shot(1)).log_softmax(1)
    entropy = -(log.exp() * log).sum(1)
    cells = nn.functional.avg_pool2d(entropy, TILE // 4)[0]
    taken = found.trace.levels[0] == 0
    assert 0 < int(taken.sum()) < taken.numel()
    assert float(cells[taken].min()) >= float(cells[~taken].max())


# What the large network sees


def inner(used: Tensor, context: int) -> Tensor:
    """Samples of the cells that are used [N, h, w]."""
    step = TILE // 4
    return used.repeat_interleave(step, 1).repeat_interleave(step, 2)


def test_with_a_margin_an_answer_is_the_dense_one() -> None:
    """The large network sees less than a tile around: a margin of one tile is all that it needs."""
    method = select(0.6, margin_tiles=1, region_tiles=2)
    found = answer(method, shot())
    used = inner(found.trace.levels == 0, 1)
    with torch.no_grad():
        dense = method.network(shot()).log_softmax(1).movedim(1, -1)
    assert bool(used.any()) and not bool(used.all())
    assert_close(found.logits.movedim(1, -1)[used], dense[used])
    bare = answer(select(0.6, margin_tiles=0, region_tiles=2), shot())
    used = inner(bare.trace.levels == 0, 0)
    assert float((bare.logits.movedim(1, -1)[used] - dense[used]).abs().max()) > 1e-2


def test_beyond_the_margin_nothing_is_seen() -> None:
    method = select(0.5, margin_tiles=1, region_tiles=2)
    first = answer(method, shot(1))
    plan = first.trace.steps[1].plan
    assert plan is not None
    far = (plan.levels == SKIP).repeat_interleave(TILE, 1).repeat_interleave(TILE, 2)[:, None]
    other = torch.where(far, torch.rand(1, 3, *SIZE), shot(1))
    with torch.no_grad():
        ours, theirs = (method.run(x, plan).movedim(1, -1) for x in (shot(1), other))
    used = inner(first.trace.levels == 0, 1)
    assert bool(far.any()) and torch.equal(ours[used], theirs[used])


def test_a_coarse_view_lets_the_large_network_see_all() -> None:
    method = select(0.6, context="coarse", margin_tiles=0, coarse_level=2)
    found = answer(method, shot(1))
    plan = found.trace.steps[1].plan
    assert plan is not None and int(plan.levels.min()) == 0 and int(plan.levels.max()) == 2
    assert torch.equal(found.trace.levels == 0, plan.levels == 0)


def test_a_mask_costs_nothing_of_the_large_network() -> None:
    method, wanted = select(0.8, margin_tiles=0), torch.zeros(1, *grid(SIZE, TILE), dtype=torch.bool)
    wanted[:, 2:5, 3:6] = True
    with torch.no_grad():
        found = method.masked(shot(1), wanted)
    assert float(found.trace.work) == pytest.approx(method.least_work(SIZE) + 9 * TILE**2 / prod(SIZE))
    assert torch.equal(found.trace.levels == 0, wanted)


# The two answers


def test_feathers_change_only_the_margin() -> None:
    hard, soft = (
        answer(select(0.5, blend=blend, region_tiles=2, margin_tiles=1), shot())
        for blend in ("hard", "feather")
    )
    plan = hard.trace.steps[1].plan
    assert plan is not None
    within, used = inner(plan.levels == 0, 1), inner(hard.trace.levels == 0, 1)
    differs = ((hard.logits - soft.logits).abs().amax(1)) > 1e-6
    assert bool(differs.any()) and not bool((differs & (used | ~within)).any())


def test_a_trained_gate_beats_taking_the_large_answer() -> None:
    """Each network knows one half of the classes: a gate learns whom to believe, fixed rules cannot."""
    torch.manual_seed(0)
    truth = torch.randint(0, 4, (4, 24, 24)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    image = torch.zeros(4, 3, 96, 96)
    image[:, 0] = truth / 4
    image += 0.002 * torch.randn_like(image)
    small, large = (_expert(known) for known in ((0, 1), (2, 3)))
    training = ModelSelectTraining(fusion="gated", margin_tiles=0, tile=16, shares=(1.0, 1.0))
    method = ModelSelect.for_training(large, training, Aim(small=small)).eval()
    assert {n for n, p in method.named_parameters() if p.requires_grad} == {
        "gate.hidden.weight", "gate.hidden.bias", "gate.weigh.weight", "gate.bias",
    }  # fmt: skip
    before = [value.clone() for value in (*small.parameters(), *large.parameters())]
    optimiser = torch.optim.Adam(method.gate.parameters(), 0.01)
    first = method.loss(image, truth)["gated"].item()
    for _ in range(60):
        optimiser.zero_grad()
        loss = method.loss(image, truth)["gated"]
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 * first
    assert all(
        torch.equal(a, b) for a, b in zip(before, (*small.parameters(), *large.parameters()), strict=True)
    )
    found = {}
    for fusion in ("replace", "sharper", "gated"):
        config = ModelSelectConfig(1.0, tile=16, margin_tiles=0, threshold=1e-9, fusion=fusion)
        labels = answer(ModelSelect(large, config, small, method.gate).eval(), image).labels
        found[fusion] = float((labels == truth).double().mean())
    assert found["gated"] > found["replace"] + 0.1 and found["gated"] > 0.8


class _Expert(nn.Module):
    """Knows two of four classes; of the others it says, quite surely, the first one that it knows."""

    classes, in_channels, coarsest_stride = 4, 3, 4

    def __init__(self, known: tuple[int, int]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0))
        self.known = known

    def forward(self, image: Tensor) -> Tensor:
        value = nn.functional.avg_pool2d(image[:, :1] * 4, 4)
        logits = [
            (0.5 - (value - k).abs() if k in self.known else value * 0 - 1) * self.scale for k in range(4)
        ]
        return torch.cat(logits, 1)


def _expert(known: tuple[int, int]) -> _Expert:
    return _Expert(known)


# Errors


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"policy": "learned"}, "no policy of model_select named 'learned'"),
        ({"context": "crop"}, "no context of model_select named 'crop'; available: skip, coarse"),
        ({"blend": "soft"}, "no blend of model_select named 'soft'"),
        ({"fusion": "mean"}, "no fusion of model_select named 'mean'"),
        ({"fusion": "gated"}, "fusion is gated and the model has no gate; train one"),
        ({"blend": "feather", "margin_tiles": 0}, "blend is feather and margin_tiles 0; give a margin"),
        ({"margin_tiles": -1}, "margin_tiles is -1"),
        ({"region_tiles": 0}, "region_tiles is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(wishes: dict[str, object], message: str) -> None:
    assert message in error_of(lambda: select(**wishes))


def test_networks_for_other_classes_are_refused() -> None:
    text = error_of(lambda: answer(select(small=tiny(4)), shot()))
    assert text == "the small network has 4 classes and the large network 5; give two for the same classes"
    text = error_of(lambda: ModelSelect(nano(5), None, nano(4)))
    assert text == "classes of the small network is 4, of the large network 5; give two alike"


# Programs


@pytest.mark.skipif(not build.available(), reason="no compiler")
@pytest.mark.parametrize("own", [True, False], ids=["own", "alone"])
@pytest.mark.parametrize(("context", "margin"), CONTEXTS)
@torch.no_grad()
def test_compiled_equals_eager(context: str, margin: int, own: bool) -> None:
    torch.manual_seed(0)
    image = shot(2, (200, 296))
    large, small = (lively(nano(5), image[0]) for _ in range(2))
    card = Card("swiftnet_nano", NAMES, default_palette(5))
    beside = Model("small", small, card) if own else None
    engine = find_engine(Model("large", large, card, small=beside))
    wishes = {"small_level": 2, "coarse_level": 2, "context": context, "margin_tiles": margin}
    for budget in (0.3, 0.6, 1.0):
        config = ModelSelectConfig(budget, **wishes)
        compiled = engine.make("model_select", config)
        eager = ModelSelect(large, config, small if own else None).eval()
        assert isinstance(compiled, CompiledMethod)
        found, expected = compiled(image), eager(image)
        for ours, theirs in zip(found.trace.steps, expected.trace.steps, strict=True):
            assert ours.name == theirs.name
            torch.testing.assert_close(ours.work, theirs.work, rtol=0.02, atol=0)
            assert ours.plan is None or torch.equal(ours.plan.levels, theirs.plan.levels)
        assert_close(found.logits, expected.logits, 1e-4)
        assert float((found.labels == expected.labels).double().mean()) > 0.999
        assert torch.equal(compiled.labels(image), found.labels)
        assert torch.equal(compiled.dense_labels(image), engine.dense()(image).labels)


# Any two networks


def test_beside_a_network_of_its_own_the_large_one_sees_all() -> None:
    config = ModelSelectConfig(0.5)
    assert (config.regions(True).level, config.regions(False).level) == (2, SKIP)


def test_any_two_networks_are_paired(tmp_path: Path) -> None:
    image = picture(3, (140, 180))
    large, small = UNet(3).eval(), Strided(3).eval()
    model = foveal.adapt(large, method="model_select", small=small, tile=16)
    found = model(image, budget=0.6)
    assert float(found.work.max()) <= 0.6 and found.labels.shape == (1, 140, 180)
    model.save_pretrained(tmp_path / "pair")
    loaded = foveal.AdaptiveModel.from_pretrained(tmp_path / "pair", network=UNet(3), small=Strided(3))
    assert torch.equal(loaded(image, budget=0.6).labels, found.labels)
    everything = model(image, budget=1.0)
    with torch.no_grad():
        assert torch.equal(everything.labels[0], large(image).argmax(1)[0].to(torch.uint8))


class Halved(nn.Module):
    """Two poolings and two enlargements beside the image: sides must be multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.up = nn.AvgPool2d(4), nn.Upsample(scale_factor=4)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.cat([image, self.up(self.pool(image))], 1))


def test_a_small_network_may_need_other_sides_than_the_large_one() -> None:
    image = picture(3, (141, 183))
    model = foveal.adapt(Strided(3).eval(), method="model_select", small=Halved().eval(), tile=16)
    assert model.small is not None
    assert (model.spec.shape.multiple, model.small.spec.shape.multiple) == (1, 4)
    found = model(image, budget=0.9)
    assert found.labels.shape == (1, 141, 183)
    assert 0 < float(found.work) <= 0.9 and bool((found.levels == 0).any())


def test_two_networks_for_other_classes_are_not_paired() -> None:
    text = error_of(lambda: foveal.adapt(UNet(3), method="model_select", small=Strided(3, 7)))
    assert text == (
        "small has 3 channels and 7 classes, and the network 3 and 4; give two networks for the same "
        "images and classes"
    )


# The command line


def pair_of_models(folder: Path, others: tuple[str, ...] = Scenes.classes) -> tuple[Path, Path]:
    paths = []
    for name, classes in (("large", Scenes.classes), ("small", others)):
        card = Card("swiftnet_nano", classes, default_palette(len(classes)))
        paths.append(save_model(nano(len(classes)), card, folder / name))
    return paths[0], paths[1]


def test_a_pair_is_evaluated(tmp_path: Path) -> None:
    large, small = pair_of_models(tmp_path)
    data = write_folder(tmp_path / "data", 2, (96, 128))
    call = ("evaluate", large, "--data", f"folder:{data}", "--timed", 0, "--json", "--method", "model_select")
    wishes = ("--small-level", 1, "--budget", 0.6, "--margin-tiles", 0, 1)
    rows = parsed(run(*call, "--small", small, *wishes))
    assert [row["method"] for row in rows] == ["dense", "model_select", "model_select"]
    assert all(0.25 < row["work"] <= 0.6 for row in rows[1:])
    assert rows[1]["macs"] <= 0.62 * rows[0]["macs"]
    alone = parsed(run(*call, "--budget", 0.6, "--margin-tiles", 0))[1]
    assert alone["miou"] != rows[1]["miou"]


def test_a_pair_of_other_classes_is_refused(tmp_path: Path) -> None:
    large, small = pair_of_models(tmp_path, NAMES)
    text = refused(run("segment", "x.png", "--model", large, "--small", small, "--method", "model_select"))
    assert (
        text.startswith("small knows 5 classes (sky, road")
        and "give two networks for the same classes" in text
    )


def test_a_gate_is_trained_saved_and_used(tmp_path: Path) -> None:
    large, small = pair_of_models(tmp_path)
    data = write_folder(tmp_path / "data", 2, (96, 96))
    recipe = tmp_path / "gate.toml"
    recipe.write_text(
        f'model = {{ name = "swiftnet_nano", start = "{large}" }}\n'
        f'data = {{ train = "folder:{data}", crop = [96, 96] }}\n'
        f'method = {{ name = "model_select", small = "{small}", gate_width = 8, small_level = 1 }}\n'
        'train = { steps = 2, batch = 2, warmup = 1, average = 0.0, evaluate = "test" }\n'
    )
    row = parsed(run("train", recipe, "--run", tmp_path / "run", "--json"))["evaluation"][1]
    assert row["work"] <= 0.4 and (row["settings"]["fusion"], row["settings"]["small_level"]) == ("gated", 1)
    model = load_model(tmp_path / "run")
    gate = model.part(AnswerGate)
    assert gate is not None and gate.config == {"classes": len(Scenes.classes), "width": 8}
    before, after = load_model(large).network.state_dict(), model.network.state_dict()
    assert all(torch.allclose(after[k], before[k], rtol=1e-3, atol=1e-4) for k in after if "tracked" not in k)
    call = ("evaluate", tmp_path / "run", "--data", f"folder:{data}", "--timed", 0, "--json", "--budget", 0.7)
    wishes = ("--small", small, "--method", "model_select", "--fusion", "gated", "--small-level", 1)
    assert parsed(run(*call, *wishes))[1]["work"] <= 0.7
    assert "gate" in refused(run("evaluate", large, *call[2:], *wishes))


def test_it_is_listed() -> None:
    row = next(row for row in parsed(run("methods", "--json")) if row["name"] == "model_select")
    assert "Huang" in row["source"] and row["adapts"].startswith("which of two networks")


# Laws, for a pair: the tests of laws run the method without a small network


def test_a_pair_decides_for_every_image_alone_and_always_alike() -> None:
    method, image = select(0.5, context=None), shot(3)
    image[1] *= 0.2
    together, again = answer(method, image), answer(method, image)
    assert torch.equal(together.logits, again.logits)
    for n in range(3):
        alone = answer(method, image[n : n + 1])
        assert torch.equal(alone.trace.levels[0], together.trace.levels[n])
        assert_close(alone.logits[0], together.logits[n])


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (33, 47), (97, 131), (1, 97)])
def test_a_pair_takes_any_size(size: tuple[int, int]) -> None:
    method, image = select(0.6, context=None), torch.rand(1, 3, *size)
    found = answer(method, image)
    assert found.labels.shape == (1, *size) and float(found.trace.work) <= 0.6


def test_a_networks_statistics_stay_when_work_is_counted() -> None:
    method = select(0.5, small=headless())
    method.train()
    before = {key: value.clone() for key, value in method.small.state_dict().items()}
    assert 0 < method.least_work(SIZE) < 1
    assert all(torch.equal(value, before[key]) for key, value in method.small.state_dict().items())


def test_what_is_left_is_what_the_large_network_did_not_answer() -> None:
    few, many = (select(budget, margin_tiles=0) for budget in (0.2, 0.8))
    left = [float(m.remaining_gain(shot(), answer(m, shot())).mean()) for m in (few, many)]
    assert left[0] > 2 * left[1] > 0
    everything = select(1.0)
    assert everything.remaining_gain(shot(), answer(everything, shot())).tolist() == [0, 0]


def test_a_count_within_a_count_is_not_part_of_it() -> None:
    net, image = headless(), torch.rand(1, 3, 32, 32)
    once = count_macs(lambda: net(image))

    def run() -> None:
        assert count_macs(lambda: net(image)) == once
        net(image)

    assert count_macs(run) == once


def test_both_networks_run_in_another_precision(tmp_path: Path) -> None:
    large, small = (load_model(path) for path in pair_of_models(tmp_path))
    engine = find_engine(replace(large, small=small), "bf16")
    assert engine.small is not None and engine.small.precision == "bf16"
    made = engine.make("model_select", ModelSelectConfig(0.6, small_level=1))
    assert answer(made, shot()).labels.shape == (2, *SIZE)
