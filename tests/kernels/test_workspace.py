from __future__ import annotations

import pytest
import torch

from foveal.kernels.workspace import PATIENCE, SMALLEST, Workspace

LARGE = SMALLEST // 4


def test_a_block_is_used_again_once_no_tensor_needs_it() -> None:
    space = Workspace()
    first = space.empty(LARGE)
    where = first.data_ptr()
    second = space.empty(LARGE)
    assert second.data_ptr() != where
    view = first.view(2, -1)[1]
    del first
    third = space.empty(LARGE)  # the view still holds the block
    assert third.data_ptr() not in (where, second.data_ptr())
    total = space.bytes
    del view
    assert space.empty(4, LARGE // 4).data_ptr() == where
    assert space.bytes == total


def test_values_stay_as_they_are_while_others_come_and_go() -> None:
    space = Workspace()
    kept = space.empty(LARGE).fill_(3.0)
    for k in range(20):
        space.empty(LARGE).fill_(float(k))
    assert (kept == 3).all()


def test_the_smallest_block_that_is_large_enough_serves() -> None:
    space = Workspace()
    large, small = space.empty(8 * LARGE), space.empty(2 * LARGE)
    places = large.data_ptr(), small.data_ptr()
    del large, small
    assert space.empty(LARGE).data_ptr() == places[1]
    assert space.empty(5 * LARGE).data_ptr() == places[0]


def test_blocks_that_nobody_wants_are_given_back() -> None:
    space = Workspace()
    unwanted, wanted = space.empty(64 * LARGE), space.empty(LARGE)
    del unwanted, wanted
    before = space.bytes
    for _ in range(PATIENCE + 2):
        space.empty(LARGE)
    assert space.bytes < before
    space.clear()
    assert space.bytes == 0


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEAL_WORKSPACE", "0")
    space = Workspace()
    assert space.empty(4 * LARGE).shape == (4 * LARGE,) and space.bytes == 0


def test_small_results_are_left_to_torch() -> None:
    space = Workspace()
    x = space.empty(2, 3)
    assert x.shape == (2, 3) and x.dtype == torch.float32 and space.bytes == 0
