"""Fingerprint of a network's weights, by which files that belong to them are found."""

from __future__ import annotations

import hashlib
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

_Mark = tuple[str, StorageWeakRef, int, tuple[object, ...]]
_KNOWN: WeakKeyDictionary[nn.Module, tuple[list[_Mark], str]] = WeakKeyDictionary()


def fingerprint(network: nn.Module) -> str:
    """Digest the trained numbers of a network: names, shapes, precisions and values.

    The numbers are read once per network object, and again only after a change that PyTorch records: a
    tensor was replaced, has other memory, or was written to in place (an optimiser's step,
    `load_state_dict`, `half()`). Writing through `tensor.data` or a NumPy view leaves no record, for the
    fingerprint as for autograd; use `torch.no_grad()` instead.
    """
    state = network.state_dict(keep_vars=True)
    if any(value.is_inference() for value in state.values()):  # they have no count of writes
        return digest(state)
    marks = [_mark(name, value) for name, value in state.items()]
    known = _KNOWN.get(network)
    if known is None or known[0] != marks:
        known = _KNOWN[network] = marks, digest(state)
    return known[1]


def digest(state: dict[str, Tensor]) -> str:
    """Digest tensors by name: names, shapes, precisions and values."""
    found = hashlib.sha256()
    for name, value in state.items():
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _mark(name: str, value: Tensor) -> _Mark:
    """Say in which memory a tensor lies, how it reads it, and how often it was written to.

    An address alone may be used again, as by `half().float()`, which rounds; a weak reference is not.
    """
    view = value.dtype, value.shape, value.stride(), value.storage_offset()
    return name, StorageWeakRef(value.untyped_storage()), value._version, view
