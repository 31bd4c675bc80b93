from __future__ import annotations

import numpy as np
import pytest
import torch

from foveal.program import CoarseToFineRun, PlannedRun, Program, SegBlocksRun
from foveal.program.quantise import quantise, split_prologues


def images() -> list[np.ndarray]:
    draw = torch.Generator().manual_seed(1)
    small = torch.rand(2, 3, 24, 32, generator=draw)
    return [torch.nn.functional.interpolate(small, scale_factor=8, mode="bilinear").numpy()]


def test_splitting_prologues_changes_nothing(name: str, program) -> None:
    image = images()[0]
    one, two = (
        program(name).run(image, logits=True),
        Program(split_prologues(program(name).tables)).run(image, logits=True),
    )
    np.testing.assert_allclose(one.logits, two.logits, rtol=1e-4, atol=1e-4 * float(abs(one.logits).max()))


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.02), ("u8", 0.1)])
def test_methods_in_reduced_precision(name: str, precision: str, limit: float, program) -> None:
    """Law 15: within the error of the same-precision dense network, on mixed levels too."""
    made = quantise(program(name), images(), precision, 0.0).program
    image = images()[0]
    plan = np.zeros((2, 6, 8), np.int8)
    plan[:, :4, :4], plan[:, 4:, 6:] = 2, -1
    for settings in (None, PlannedRun(plan), CoarseToFineRun(0.6), SegBlocksRun(0.6)):
        expected, found = (
            program(name).run(image, settings, logits=True),
            made.run(image, settings, logits=True),
        )
        error = (
            abs(expected.logits - found.logits).mean() / abs(expected.logits - expected.logits.mean()).mean()
        )
        if (expected.levels == found.levels).all():
            assert error < limit


def test_maps_stay_in_bfloat16_until_labels_agree(program) -> None:
    given, noise = program("swiftnet_nano"), [np.random.default_rng(0).random((1, 3, 96, 96), np.float32)]
    one, two = quantise(given, noise, least_agreement=0.0), quantise(given, noise, least_agreement=1.1)
    assert not one.kept and two.kept  # nothing agrees more than wholly: as many as may be are kept
    assert two.agreement >= one.agreement - 0.01


@pytest.mark.parametrize(("given", "precision"), [([], "u8"), (images(), "fp4")])
def test_bad_requests_are_refused(given: list, precision: str, program) -> None:
    with pytest.raises(ValueError, match="give u8 or bf16"):
        quantise(program("swiftnet_nano"), given, precision)
