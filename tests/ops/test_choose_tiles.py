from __future__ import annotations

import pytest
import torch

from foveal.ops import choose_tiles


@pytest.mark.parametrize("rows_columns", [(1, 1), (1, 9), (13, 7), (40, 31)])
@pytest.mark.parametrize("isolated", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("flat", [False, True])
def test_all_backends_choose_the_same(rows_columns: tuple[int, int], isolated: float, flat: bool) -> None:
    draw = torch.Generator().manual_seed(5)
    values = torch.rand(rows_columns, generator=draw, dtype=torch.float64) ** 3
    is_open = torch.rand(rows_columns, generator=draw) < 0.8
    values = (values * 4).round() / 4 if flat else values  # many that are equal
    values = torch.where(is_open, values, -torch.inf)
    for count in (0, 1, values.numel() // 3, values.numel()):
        first, *others = (
            choose_tiles(values, is_open, isolated, count, backend=b) for b in choose_tiles.names
        )
        assert int(first.sum()) == min(count, int(is_open.sum()))
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(
    ("shapes", "isolated", "count", "says"),
    [
        (((2, 3), (3, 2)), 0.3, 1, "give two maps"),
        (((2, 3, 1), (2, 3, 1)), 0.3, 1, "give two maps"),
        (((2, 3), (2, 3)), 1.3, 1, "isolated gain is 1.3"),
        (((2, 3), (2, 3)), 0.3, -1, "count -1"),
    ],
)
def test_what_is_no_choice_is_said(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], isolated: float, count: int, says: str
) -> None:
    values, is_open = torch.ones(shapes[0]), torch.ones(shapes[1], dtype=torch.bool)
    with pytest.raises(ValueError, match=says):
        choose_tiles(values, is_open, isolated, count)
