from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveal.inference.large.parts import BAND, Packed, pack

ROWS = 2 * BAND + 70


def test_any_rows_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "part"
    values = np.arange(ROWS * 3, dtype=np.float32).reshape(ROWS, 3)
    path.write_bytes(pack({"values": values, "nothing": np.zeros((0, 2), np.uint8)}))
    found = Packed(path)
    assert "values" in found and "others" not in found
    for first, last in ((0, ROWS), (5, 9), (BAND - 1, BAND + 1), (BAND, 2 * BAND), (ROWS - 1, ROWS)):
        assert np.array_equal(found.rows("values", first, last), values[first:last])
    assert found.rows("nothing").shape == (0, 2)


@pytest.mark.parametrize(
    "head",
    [
        [1],
        {"labels": 3},
        {"labels": {}},
        {"labels": {"shape": [3], "kind": "|u1", "bytes": ["x"]}},
        {"labels": {"shape": [-1], "kind": "|u1", "bytes": []}},
        {"labels": {"shape": [], "kind": "|u1", "bytes": []}},
        {"labels": {"shape": [3], "kind": "|O", "bytes": [0]}},
        {"labels": {"shape": [3], "kind": "|u1", "bytes": [0, 0]}},
        {"labels": {"shape": [10**12], "kind": "<f8", "bytes": []}},
        {"labels": {"shape": [BAND, 10**11], "kind": "<f8", "bytes": [0]}},
        {"labels": {"shape": [3], "kind": "|u1", "bytes": [10**12]}},
        {"labels": {"shape": [0, 10**12, 10**12, 0], "kind": "|u1", "bytes": []}},
    ],
    ids=str,
)
def test_a_header_that_says_something_else_is_damage(head: Any, tmp_path: Path) -> None:
    text, path = json.dumps(head).encode(), tmp_path / "part"
    path.write_bytes(len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text)
    with pytest.raises(ValueError, match=r"part is damaged; delete the folder .*, and run again"):
        Packed(path)


def test_an_array_of_another_name_or_shape_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(pack({"labels": np.zeros((3, 4), np.uint8)}))
    found = Packed(path)
    assert found.rows("labels", shape=(3, 4)).shape == (3, 4)
    for name, shape in (("others", None), ("labels", (4, 3))):
        with pytest.raises(ValueError, match=r"part is damaged; delete the folder .*, and run again"):
            found.rows(name, shape=shape)


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    path, values = tmp_path / "part", np.random.default_rng(0).integers(0, 9, (40, 5), np.uint8)
    good = pack({"values": values})
    for bit in range(8 * len(good)):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="is damaged"):
            Packed(path).rows("values")
