from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from foveal.data.dataset import Dataset, open_dataset
from foveal.evaluation.baselines import Reduced, static
from foveal.evaluation.evaluate import evaluate
from foveal.geometry.plan import Plan
from foveal.hub.card import Card
from foveal.hub.checkpoint import Model, save_model
from foveal.methods import Dense, Prediction, Step, Trace
from foveal.policies import PolicyNet
from samples import error_of, headless, nano, write_folder
from studies import segblocks as package
from studies.segblocks import PARTS, Study, Tools, choose_parts, reproduce
from studies.segblocks.blocks import fitting
from studies.segblocks.classes import FineShare
from studies.segblocks.engine_parts import curve_summary
from studies.segblocks.gmacs import gmacs, policy_gmacs, rounding_excess
from studies.segblocks.main_table import main_table
from studies.segblocks.panels import sheet
from studies.segblocks.policies import policies
from studies.segblocks.record import write_index, write_part
from studies.segblocks.scenes import write_scenes
from studies.segblocks.seeds import over_seeds
from studies.segblocks.study import Part, work_of
from studies.segblocks.table import markdown
from studies.segblocks.workshop import Workshop, budget_of, learned, spread, toml

SIZE = (128, 192)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(f"folder:{write_folder(tmp_path_factory.mktemp('scenes'), 3, SIZE)}")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Study:
    """Two seeds of a small network with policies for two targets, nothing to train."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    models = []
    for seed in (0, 1):
        network, net = nano(len(data.classes)), PolicyNet(64, 8, 4)
        for target in (0.4, 0.2):
            card = Card("swiftnet_nano", data.classes, data.palette, policy=net.config)
            card = replace(card, training={"recipe": {"method": {"target": target}, "seed": seed}})
            models.append(str(save_model(network, card, folder / f"target{target:.0%}_{seed}", policy=net)))
    return Study(
        folder / "out",
        f"folder:{data.pairs[0].image.parent.parent}",
        models=(models[0], models[2]),
        segblocks=tuple(models),
        scale=SIZE,
        limit=1,
        timed=0,
    )


def tools(train: Any = None) -> Tools:
    return Tools(
        train, lambda image, labels, palette: image, lambda *a: Image.new("RGB", (8, 8)), "foveal test"
    )


def workshop(study: Study, train: Any = None) -> Workshop:
    return Workshop(study, tools(train))


def test_the_main_table_has_every_rule_with_mean_and_deviation_over_the_seeds(study: Study) -> None:
    rows = main_table(workshop(study))
    assert [(row["network"], row["target"]) for row in rows] == [
        ("dense", None),
        ("SegBlocks, probability", 0.4),
        ("SegBlocks, budget", 0.4),
        ("SegBlocks, probability", 0.2),
        ("SegBlocks, budget", 0.2),
        *((f"dense, reduced to {side}", None) for side in ("0.74", "0.63", "0.50")),
    ]
    assert all(row["seeds"] == 2 and row["miou_std"] is not None for row in rows)
    budget = {row["target"]: row["work"] for row in rows if row["policy"] == "budget"}
    assert budget[0.2] < budget[0.4] < 0.75


def test_one_dense_network_has_no_deviation(study: Study) -> None:
    rows = main_table(workshop(replace(study, models=study.models[:1], seeds=2)))
    assert {row["seeds"] for row in rows if row["method"] == "segblocks"} == {2}
    assert {(row["seeds"], row["miou_std"]) for row in rows if row["method"] != "segblocks"} == {(1, None)}


def test_policies_that_the_budget_does_not_pay_for_are_named(study: Study) -> None:
    rows = policies(workshop(replace(study, models=study.models[:1], segblocks=study.segblocks[:2])))
    low = [row for row in rows if row["budget"] == round(work_of(0.2), 4)]
    absent = {row["policy"] for row in low if row["miou"] is None}
    assert absent == {"entropy, look at a half"}
    works = [row["work"] for row in low if row["miou"] is not None]
    assert max(works) - min(works) <= 32**2 / (SIZE[0] * SIZE[1]) * 2
    assert next(row for row in low if row["policy"] == "oracle")["gmacs"] is None


def test_a_budget_pays_for_the_decision_and_the_blocks(study: Study) -> None:
    model = workshop(study).segblocks(0.4)
    assert model.policy is not None and model.policy.share > 0
    assert budget_of(model, 0.4) == pytest.approx(0.55 + model.policy.share)
    image = torch.rand(1, 3, 256, 256)
    plan = learned(model, budget_of(model, 0.5))(image).trace.plan
    assert plan is not None and plan.share(0) == 0.5


def test_a_model_without_a_policy_is_refused(study: Study, data: Dataset, tmp_path: Path) -> None:
    card = Card("swiftnet_nano", data.classes, data.palette)
    path = str(save_model(nano(len(data.classes)), card, tmp_path / "dense"))
    assert "not trained with a learned policy" in error_of(workshop(replace(study, segblocks=(path,))).check)
    assert "no policy network" in error_of(lambda: learned(Model("dense", nano(), card)))


def test_a_model_of_other_classes_is_refused(study: Study, tmp_path: Path) -> None:
    card = Card("swiftnet_nano", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    path = str(save_model(nano(2), card, tmp_path / "two"))
    assert "knows 2 classes" in error_of(workshop(replace(study, models=(path,))).check)


def test_policies_of_another_architecture_are_refused(study: Study) -> None:
    other = replace(study, models=(), network="swiftnet_rn18")
    assert "is a swiftnet_nano, and no such --model" in error_of(workshop(other).check)


def test_what_is_missing_is_trained_once_and_kept(study: Study, tmp_path: Path) -> None:
    asked: list[str] = []

    def train(recipe: Path, folder: Path) -> Path:
        asked.append(recipe.read_text())
        (folder / "model.safetensors").write_bytes(Path(study.segblocks[0]).read_bytes())
        (folder / "model.json").write_bytes(Path(study.segblocks[0]).with_suffix(".json").read_bytes())
        return folder / "model.safetensors"

    bare = replace(study, out=tmp_path, models=(), segblocks=())
    assert workshop(bare, train).segblocks(0.4).policy is not None
    assert len(asked) == 2
    assert "frozen = true" in asked[1] and "seed0/model.safetensors" in asked[1]
    workshop(bare, train).segblocks(0.4)
    assert len(asked) == 2
    other = replace(bare, policy_steps=7)
    assert "holds a run of other settings" in error_of(lambda: workshop(other, train).segblocks(0.4))


def test_a_failing_part_does_not_stop_the_others_and_written_ones_are_kept(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def good(shop: Workshop) -> list[dict[str, Any]]:
        ran.append("good")
        return [{"miou": 0.5}]

    def bad(shop: Workshop) -> list[dict[str, Any]]:
        raise RuntimeError("nothing\nworks")

    parts = {"bad": Part("Bad", "It fails.", bad), "good": Part("Good", "It runs.", good)}
    monkeypatch.setattr(package, "PARTS", parts)
    monkeypatch.setattr(package, "check_plots", lambda: None)
    study = replace(study, out=tmp_path / "out")
    outcome = reproduce(study, tools())
    assert (outcome.written, list(outcome.failed)) == (["good"], ["bad"])
    index = (study.out / "README.md").read_text()
    assert "bad failed: RuntimeError: nothing works" in index and "| 50.0 |" in index
    assert reproduce(study, tools(), ["good"]).kept == ["good"]
    assert reproduce(study, tools(), ["good"], again=True).written == ["good"]
    assert ran == ["good", "good"]
    record = json.loads((study.out / "good.json").read_text())
    assert (record["rows"], record["command"]) == ([{"miou": 0.5}], "foveal test")
    assert {"machine", "threads", "torch", "commit", "study", "seconds"} <= set(record)


def test_unknown_parts_are_refused_with_a_suggestion() -> None:
    assert "did you mean 'main_table'" in error_of(lambda: choose_parts(["maintable"]))
    assert "no part is named" in error_of(lambda: choose_parts([]))
    assert choose_parts(["classes", "main_table"]) == ["main_table", "classes"]
    assert choose_parts(None) == list(PARTS)


def test_a_reduced_image_costs_its_pixels_and_factor_1_is_dense(data: Dataset) -> None:
    network = headless(len(data.classes))
    dense, same, half = evaluate(
        Dense(network).eval(), data, [static(network, 1.0), static(network, 0.25)], timed=0
    )
    assert same.agreement == 1 and same.work == 1
    assert half.work == 0.25 and half.agreement < 1
    assert half.macs < 0.5 * dense.macs
    assert "factor is 0" in error_of(lambda: Reduced(network, 0))


def test_reducing_agrees_with_a_network_that_sees_only_colours(data: Dataset) -> None:
    network = nn.Conv2d(3, len(data.classes), 1).eval()
    flat = torch.rand(1, 3, 1, 1).expand(1, 3, *SIZE)
    prediction = Reduced(network, 0.63)(flat)
    assert prediction.labels.shape == (1, *SIZE)
    assert bool((prediction.labels == network(flat).argmax(1)).all())


def test_pixels_of_a_class_are_counted_where_they_are_seen_closely() -> None:
    levels = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]], dtype=torch.int8)
    plan = Plan(levels, 4, (7, 14))
    target = torch.ones(1, 7, 14, dtype=torch.uint8)
    target[:, :, :6] = 0
    target[0, 0, 0] = 255
    counts = FineShare(3)
    logits = torch.zeros(1, 3, 7, 14)
    counts.see(Prediction(logits, (7, 14), Trace((Step("network", plan.work, plan),))), target)
    assert counts.all.tolist() == [41, 56, 0]
    assert counts.share == [1.0, 0.25, None]


def test_rows_of_seeds_are_joined() -> None:
    row = {"method": "dense", "policy": "", "budget": 1.0, "work": 1.0, "macs": 2e9, "agreement": 1.0}
    row |= {"boundary_f": 0.5, "images": 3, "ms": 20.0, "miou": 0.6}
    (joined,) = over_seeds([[row], [row | {"miou": 0.8, "ms": None}]])
    assert joined["miou"] == 0.7 and joined["miou_std"] == pytest.approx(0.1414)
    assert (joined["gmacs"], joined["ms"], joined["images_s"], joined["seeds"]) == (2.0, 20.0, 50.0, 2)
    assert over_seeds([[row]])[0]["miou_std"] is None


def test_the_share_behind_the_gmacs_of_the_paper_exceeds_its_target() -> None:
    rows = {(row["network"], row["target"]): row for row in gmacs()}
    assert rows["swiftnet_rn18", 1.0]["gmacs"] == pytest.approx(103.6, abs=0.1)
    assert rows["swiftnet_rn18", 0.4]["share_at_paper"] == pytest.approx(0.441, abs=0.003)
    assert rows["swiftnet_rn18", 0.2]["share_at_paper"] == pytest.approx(0.222, abs=0.003)
    assert all(row["excess"] is None or row["excess"] > 0.02 for row in rows.values())


@pytest.mark.parametrize(("layers", "gmac"), [(2, 0.01), (3, 0.07), (4, 0.34), (5, 1.51)])
def test_policy_networks_cost_what_the_paper_says(layers: int, gmac: float) -> None:
    assert policy_gmacs(64, layers) == pytest.approx(gmac, rel=0.4, abs=0.01)


def test_rounding_up_adds_half_a_step_and_never_with_certain_blocks() -> None:
    assert rounding_excess(0.4, 128) == pytest.approx(3.5 / 128, abs=2e-3)
    assert rounding_excess(1.0, 128) == 0
    assert rounding_excess(0.5, 16) == 0


def test_tables_show_percent_deviation_and_what_is_missing() -> None:
    rows = [{"network": "dense", "miou": 0.5, "miou_std": 0.01, "ms": None}, {"network": "b", "gmacs": 2.0}]
    head, _, first, second = markdown(rows).splitlines()
    assert head == "| network | mIoU [%] | ms | GMAC |"
    assert first == "| dense | 50.0 ± 1.0 | – | – |"
    assert second == "| b | – | – | 2 |"
    counted = markdown([{"macs": 1_500_000_000, "source": "Table I"}, {"macs": None, "source": "Table I"}])
    assert counted.splitlines()[2:] == ["| 1.5 |", "| – |", "", "Source: Table I."]
    assert markdown([]) == ""


def test_recipes_are_written_as_toml() -> None:
    import tomllib

    recipe = {"": {"seed": 3}, "model": {"name": 'a "b"'}, "data": {"crop": [1, 2]}, "m": {"frozen": True}}
    expected = {"seed": 3, "model": {"name": 'a "b"'}, "data": {"crop": [1, 2]}, "m": {"frozen": True}}
    assert tomllib.loads(toml(recipe)) == expected


def test_scenes_make_a_data_set_and_are_drawn_once(tmp_path: Path) -> None:
    write_scenes(tmp_path, {"train": 1, "test": 2}, (48, 64))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    write_scenes(tmp_path, {"train": 1, "test": 2}, (48, 64))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    found = open_dataset(f"folder:{tmp_path}", "test")
    assert len(found) == 2 and len(found.classes) == 11
    assert not torch.equal(found[0][0], open_dataset(f"folder:{tmp_path}", "train")[0][0])


def test_images_are_taken_from_all_over_a_data_set(data: Dataset) -> None:
    many = replace(data, pairs=tuple(data.pairs[k % 3] for k in range(10)))
    assert spread(many, 2).pairs == (many.pairs[0], many.pairs[5])
    assert len(spread(data, 100)) == 3


def test_block_sizes_fit_the_stride_and_the_image() -> None:
    assert fitting(16, 360) == [32, 64, 128]
    assert fitting(32, 256) == [64, 128]


def test_panels_of_all_shapes_make_one_sheet() -> None:
    wide, tall = Image.new("RGB", (80, 40)), Image.new("RGB", (40, 80))
    page = sheet([[wide, tall], [wide, wide]], ["a", "b"])
    assert page.size == (806, 28 + 800 + 6 + 200)


def test_curves_are_summed_up() -> None:
    rows = [
        {"run": name, "step": k, "loss": top / k} for name, top in (("a", 4.0), ("b", 8.0)) for k in (1, 4)
    ]
    (first, second) = curve_summary(rows)
    assert first["loss at the end"] == 2.5 and second["loss at the end"] == 5.0
    assert first["steps to a loss of 5.000"] == 1 and second["steps to a loss of 5.000"] == 4


@pytest.mark.parametrize("name", sorted(PARTS))
def test_every_part_says_what_it_is_and_tables_of_the_paper_can_be_printed(name: str) -> None:
    part = PARTS[name]
    assert part.title and part.says.endswith(".")
    lines = markdown(list(part.paper)).splitlines()
    assert not part.paper or len([line for line in lines if line.startswith("|")]) == len(part.paper) + 2


def test_figures_are_drawn_beside_the_table(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    study = Study(tmp_path, quick=True)
    write_part(study, "gmacs", PARTS["gmacs"], gmacs(), {"command": "", "seconds": 0.0})
    with Image.open(tmp_path / "gmacs.png") as picture:
        assert min(picture.size) >= 500
    assert "![" in (tmp_path / "gmacs.md").read_text()
    index = write_index(study, PARTS, {}).read_text()
    assert '<a id="gmacs"></a>' in index and "hardly trained" in index
