"""Experiments about quality and cost over labelled images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from foveal.data.dataset import Dataset
from foveal.evaluation.baselines import Reduced, static
from foveal.evaluation.evaluate import evaluate
from foveal.evaluation.rows import EvalRow
from foveal.geometry.plan import Plan
from foveal.methods import Dense, Prediction, Step, Trace
from reproduction import networks
from samples import error_of, headless
from studies.segblocks import Study
from studies.segblocks.experiments import classes, distribution, gmacs, main_table, policies
from studies.segblocks.experiments.blocks import fitting
from studies.segblocks.experiments.panels import sheet
from studies.segblocks.paper import policy_gmacs
from studies.segblocks.rows import as_keys
from studies.segblocks.seeds import over_seeds
from studies.segblocks.study import work_of


def test_the_main_table_has_every_rule_with_mean_and_deviation_over_the_seeds(study: Study) -> None:
    rows = main_table.run(networks(study))
    assert [(row.network, row.target) for row in rows] == [
        ("dense", None),
        ("SegBlocks, probability", 0.4),
        ("SegBlocks, budget", 0.4),
        ("SegBlocks, probability", 0.2),
        ("SegBlocks, budget", 0.2),
        *((f"dense, reduced to {side}", None) for side in ("0.74", "0.63", "0.50")),
    ]
    assert all(row.seeds == 2 and row.miou_std is not None for row in rows)
    budget = {row.target: row.work for row in rows if row.policy == "budget"}
    assert budget[0.2] < budget[0.4] < 0.75


def test_one_dense_network_has_no_deviation(study: Study) -> None:
    rows = main_table.run(networks(replace(study, models=study.models[:1], seeds=2)))
    assert {row.seeds for row in rows if row.method == "segblocks"} == {2}
    assert {(row.seeds, row.miou_std) for row in rows if row.method != "segblocks"} == {(1, None)}


def test_policies_that_the_budget_does_not_pay_for_are_named(study: Study) -> None:
    rows = policies.run(networks(replace(study, models=study.models[:1], segblocks=study.segblocks[:2])))
    low = [row for row in rows if row.budget == round(work_of(0.2), 4)]
    absent = [row for row in low if isinstance(row, policies.UnaffordableRow)]
    assert [row.policy for row in absent] == ["entropy, look at a half"]
    assert list(as_keys(absent[0])) == ["policy", "budget", "work", "miou"]
    found = [row for row in low if isinstance(row, policies.PolicyRow)]
    works = [row.work for row in found]
    height, width = study.scale
    assert max(works) - min(works) <= 32**2 / (height * width) * 2
    assert next(row for row in found if row.policy == "oracle").gmacs is None


def test_classes_have_their_share_of_the_labels_and_keys_by_target(study: Study, data: Dataset) -> None:
    rows = classes.run(networks(replace(study, models=study.models[:1], segblocks=study.segblocks[:2])))
    assert [row.name for row in rows] == list(data.classes)
    assert sum(row.pixels or 0 for row in rows) == pytest.approx(1, abs=1e-3)
    keys = ["class", "pixels", "iou_dense", "iou_0.4", "fine_0.4", "iou_0.2", "fine_0.2"]
    assert all(list(as_keys(row)) == keys for row in rows)
    assert any(row.targets[0.4].fine is None for row in rows) == any(row.pixels == 0 for row in rows)


def test_a_budget_gives_every_image_the_same_macs(study: Study) -> None:
    rows = distribution.run(networks(replace(study, limit=2)))
    exact = [row.gmacs for row in rows if (row.target, row.rule) == (0.4, "budget")]
    assert len(exact) == 2 and exact[0] == pytest.approx(exact[1], rel=1e-2)
    (first, *_), heads = distribution.summary(rows), {(row.target, row.rule) for row in rows}
    assert len(rows) == 2 * len(heads) and first.images == 2
    assert first.least <= first.gmacs <= first.most


def test_a_reduced_image_costs_its_pixels_and_factor_1_is_dense(data: Dataset) -> None:
    network = headless(len(data.classes))
    dense, same, half = evaluate(
        Dense(network).eval(), data, [static(network, 1.0), static(network, 0.25)], timed=0
    )
    assert same.agreement == 1 and same.work == 1
    assert half.work == 0.25 and half.agreement < 1
    assert half.macs < 0.5 * dense.macs
    assert "factor is 0" in error_of(lambda: Reduced(network, 0))


def test_reducing_agrees_with_a_network_that_sees_only_colours(data: Dataset, study: Study) -> None:
    network = nn.Conv2d(3, len(data.classes), 1).eval()
    flat = torch.rand(1, 3, 1, 1).expand(1, 3, *study.scale)
    prediction = Reduced(network, 0.63)(flat)
    assert prediction.labels.shape == (1, *study.scale)
    assert bool((prediction.labels == network(flat).argmax(1)).all())


def test_pixels_of_a_class_are_counted_where_they_are_seen_closely() -> None:
    levels = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]], dtype=torch.int8)
    plan = Plan(levels, 4, (7, 14))
    target = torch.ones(1, 7, 14, dtype=torch.uint8)
    target[:, :, :6] = 0
    target[0, 0, 0] = 255
    counts = classes.FineShare(3)
    logits = torch.zeros(1, 3, 7, 14)
    counts.see(Prediction(logits, (7, 14), Trace((Step("network", plan.work, plan),))), target)
    assert counts.all.tolist() == [41, 56, 0]
    assert counts.share == [1.0, 0.25, None]


def dense_row(**changes: Any) -> EvalRow:
    values: dict[str, Any] = {"method": "dense", "policy": "", "budget": 1.0, "work": 1.0, "work_max": 1.0}
    values |= {"miou": 0.6, "iou": {}, "pixel_accuracy": 0.8, "boundary_f": 0.5, "agreement": 1.0}
    return EvalRow(**(values | {"macs": 2_000_000_000, "ms": 20.0, "images": 3} | changes))


def test_rows_of_seeds_are_joined() -> None:
    (joined,) = over_seeds([[dense_row()], [dense_row(miou=0.8, ms=None)]])
    assert joined.miou == 0.7 and joined.miou_std == pytest.approx(0.1414)
    assert (joined.gmacs, joined.ms, joined.images_s, joined.seeds) == (2.0, 20.0, 50.0, 2)
    assert over_seeds([[dense_row()]])[0].miou_std is None


def test_images_without_a_label_are_refused() -> None:
    assert "no pixel of the 3 images has a label; give images with labels" in error_of(
        lambda: over_seeds([[dense_row()], [dense_row(miou=None)]])
    )


def test_the_share_behind_the_gmacs_of_the_paper_exceeds_its_target() -> None:
    rows = {(row.network, row.target): row for row in gmacs.measure()}
    assert rows["swiftnet_rn18", 1.0].gmacs == pytest.approx(103.6, abs=0.1)
    assert rows["swiftnet_rn18", 0.4].share_at_paper == pytest.approx(0.441, abs=0.003)
    assert rows["swiftnet_rn18", 0.2].share_at_paper == pytest.approx(0.222, abs=0.003)
    assert all(row.excess is None or row.excess > 0.02 for row in rows.values())
    assert len([row for row in rows.values() if row.excess is None]) == 3


@pytest.mark.parametrize(("layers", "gmac"), [(2, 0.01), (3, 0.07), (4, 0.34), (5, 1.51)])
def test_policy_networks_cost_what_the_paper_says(layers: int, gmac: float) -> None:
    assert policy_gmacs(64, layers) == pytest.approx(gmac, rel=0.4, abs=0.01)


def test_rounding_up_adds_half_a_step_and_never_with_certain_blocks() -> None:
    assert gmacs.rounding_excess(0.4, 128) == pytest.approx(3.5 / 128, abs=2e-3)
    assert gmacs.rounding_excess(1.0, 128) == 0
    assert gmacs.rounding_excess(0.5, 16) == 0


def test_block_sizes_fit_the_stride_and_the_image() -> None:
    assert fitting(16, 360) == [32, 64, 128]
    assert fitting(32, 256) == [64, 128]


def test_panels_of_all_shapes_make_one_sheet() -> None:
    wide, tall = Image.new("RGB", (80, 40)), Image.new("RGB", (40, 80))
    page = sheet([[wide, tall], [wide, wide]], ["a", "b"])
    assert page.size == (806, 28 + 800 + 6 + 200)
