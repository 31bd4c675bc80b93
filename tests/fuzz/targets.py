"""A file that is changed and read, and the comparisons with what the changed bytes say."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from mutate import mutate
from torch import Tensor

LONGEST_SENTENCE = 1500


class Target(NamedTuple):
    """A good file, what reads it, and what must be true of what was read from changed bytes."""

    path: Path
    read: Callable[[], Any]
    agrees: Callable[[Any, bytes], None]


def changed(good: bytes, seed: int) -> bytes:
    """Return the bytes of a case."""
    return mutate(good, Random(seed))


def replay(target: Target, data: bytes) -> str:
    """Put bytes in the place of the file and read it: right, or refused with one bounded sentence."""
    target.path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = target.read()
    except ValueError as error:
        assert len(str(error)) < LONGEST_SENTENCE
        return "refused"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may read the file a second time
        target.agrees(found, data)
    return "read"


def same_as_said(found: Any, said: Any) -> None:
    """Hold what was read to what the file says; what it does not name has a default."""
    if isinstance(said, Mapping):
        assert isinstance(found, Mapping)
        for key, value in said.items():
            same_as_said(found[key], value)
    elif isinstance(said, list):
        assert len(found) == len(said)
        for one, other in zip(found, said, strict=True):
            same_as_said(one, other)
    else:
        assert found == said, f"{found!r} was read, the file says {said!r}"


def as_json(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"))


def says_json(found: Any, data: bytes) -> None:
    same_as_said(found, as_json(data))


def says_record(found: Any, data: bytes) -> None:
    same_as_said(found, as_json(data)["record"])


def by_numpy(data: bytes) -> dict[str, Tensor]:
    """Read safetensors as their description says."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64,
             "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
             "BOOL": torch.bool}  # fmt: skip
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            raw = torch.tensor(list(body[first:last]), dtype=torch.uint8)
            kind = kinds[entry["dtype"]]
            found[name] = (raw.view(kind) if len(raw) else raw.to(kind)).reshape(entry["shape"])
    return found


def says_tensors(found: Mapping[str, Tensor], data: bytes) -> None:
    said = by_numpy(data)
    assert said.keys() <= found.keys()
    for name, value in said.items():
        assert torch.equal(found[name], value.to(found[name].dtype)), name
    assert all(value.isfinite().all() for value in found.values() if value.is_floating_point())
