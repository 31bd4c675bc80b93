"""What was once wrong with other people's networks, and the tests that keep it right."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
DEFECTS = {
    "a dense module gets sizes of another resolution than the map it sees": (
        "tiles/test_resize.py::test_a_dense_module_is_given_the_sides_of_the_map_it_sees",
        "compatibility/test_check.py::test_what_is_wrong_at_a_coarser_level_only_is_found",
        "test_known_networks.py::test_decoders_run_on_tiles",
    ),
    "check calls equal what then crashes": (
        "compatibility/test_check.py::test_logits_that_are_a_plain_tensor_are_found",
        "compatibility/test_check.py::test_a_failure_at_the_ragged_size_is_no_success",
        "models/test_adapters.py::test_transformers_whose_tokens_are_no_maps_are_told_in_one_sentence",
    ),
    "losses refuse labels that are bytes": (
        "objectives/test_segmentation.py::test_labels_may_be_bytes",
        "cli/test_own_data.py::test_train_evaluate_adapt_and_segment",
    ),
    "saving rounds weights": (
        "adaptive/test_files.py::test_nothing_is_pickled_and_nothing_is_rounded",
        "hub/test_checkpoint.py::test_a_loaded_model_gives_the_same_answer_and_card",
    ),
    "a pickled fused network cannot be read": (
        "fusion/test_fused_module.py::test_a_fused_network_can_be_pickled",
        "adaptive/test_with_pytorch.py::test_pickled_models_answer_the_same",
    ),
    "dense modules have to be named twice": (
        "adaptive/test_any_network.py::test_dense_modules_are_found_and_may_be_given",
    ),
    "transposed convolution costs more than dense": (
        "tiles/test_conv_transpose.py::test_everything_at_level_0_takes_the_macs_of_the_dense_network",
    ),
    "without a compiler it is slow and says nothing": (
        "kernels/test_build.py::test_one_warning_says_that_it_runs_slowly_and_why",
    ),
    "one logit labels nothing": (
        "adaptive/test_any_network.py::test_one_logit_is_the_probability_of_class_1",
        "cli/test_own_data.py::test_train_evaluate_adapt_and_segment",
    ),
    "masks of 0 and 255 are one class": (
        "data/test_own_folder.py::test_0_and_255_are_background_and_foreground",
        "data/test_own_folder.py::test_two_other_values_are_refused",
    ),
    "other channels than three are refused or lost": (
        "adaptive/test_any_network.py::test_any_number_of_channels",
        "program/test_unet.py::test_images_of_any_channels",
        "data/test_raster.py::test_no_band_of_a_tiff_is_lost",
        "data/test_raster.py::test_bands_that_do_not_fit_are_refused",
    ),
    "ragged sizes have no rule": (
        "tiles/test_resize.py::test_the_sizes_of_a_ragged_unet",
        "adaptive/test_multiples.py::test_a_network_that_wants_multiples_is_tried_on_such_images",
        "test_known_networks.py::test_decoders_take_sizes_that_are_no_multiple_of_their_stride",
    ),
    "budgets do not count what runs dense": (
        "calibration/test_whole_maps.py::test_all_of_the_network_keeps_the_budget",
    ),
    "images of 0..255 are taken silently": (
        "adaptive/test_with_pytorch.py::test_images_in_0_to_255_are_refused",
    ),
    "errors of geometry advise on something else": (
        "compatibility/test_check.py::test_a_tile_that_does_not_stay_whole_is_a_finding_about_geometry",
        "test_known_networks.py::test_patches_that_do_not_fill_an_image_are_refused_with_the_sides_that_they_fill",
    ),
    "only bundled models adapt, save and change their budget": (
        "adaptive/test_files.py::test_what_is_loaded_answers_the_same_to_the_bit",
        "adaptive/test_calling.py::test_another_budget_makes_nothing_anew",
        "methods/test_notebook.py::test_cost_is_a_sentence",
        "adaptive/test_any_network.py::test_logits_are_found_in_what_a_network_returns",
        "adaptive/test_calling.py::test_the_result_shows_itself_in_a_notebook",
        "cli/test_any_model.py::test_every_command_takes_a_function",
    ),
    "tracing and export fail without a reason": (
        "adaptive/test_with_pytorch.py::test_what_cannot_be_traced_is_said",
    ),
}


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_there_are_seventeen() -> None:
    assert len(DEFECTS) == 17


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_defect_has_its_test(defect: str) -> None:
    for place in DEFECTS[defect]:
        file, _, name = place.partition("::")
        assert name in names_in(file), place
