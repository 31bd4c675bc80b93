from __future__ import annotations

import numpy as np
import pytest
import torch

from foveal.program import CoarseToFineRun, PlannedRun, Program, SegBlocksRun
from foveal.program.quantise import find_scales, in_bf16, in_int8, split_prologues


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


def put_into(precision: str, given: Program) -> Program:
    return in_bf16(given) if precision == "bf16" else in_int8(given, find_scales(given, images(), 0.0))


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.02), ("int8", 0.1)])
def test_methods_in_reduced_precision(name: str, precision: str, limit: float, program) -> None:
    """Law 15: within the error of the same-precision dense network, on mixed levels too."""
    made = put_into(precision, program(name))
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
    one, two = (find_scales(given, noise, least) for least in (0.0, 1.1))
    assert not one.kept and two.kept  # nothing agrees more than wholly: as many as may be are kept
    assert two.agreement >= one.agreement - 0.01


def test_scales_need_images(program) -> None:
    with pytest.raises(ValueError, match="there are no images"):
        find_scales(program("swiftnet_nano"), [])


def test_scales_of_another_program_are_refused(program) -> None:
    scales = find_scales(program("swiftnet_nano"), images(), 0.0)
    with pytest.raises(ValueError, match="belong to another program"):
        in_int8(program("swiftnet_rn18_s16"), scales)
