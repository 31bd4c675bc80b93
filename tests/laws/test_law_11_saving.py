"""Law 11: saved and loaded, a method gives the same answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conformance import NAMES, Networks, answer, make, ordinary


@pytest.mark.parametrize("name", NAMES)
def test_saved_weights_give_the_same_answer_in_another_instance(
    name: str, image: Tensor, tmp_path: Path, networks: Networks
) -> None:
    method, other = make(name, networks.nano(name)), make(name, networks.nano(name))
    save_file(method.state_dict(), tmp_path / "method.safetensors")
    expected = answer(method, image)
    assert not torch.equal(answer(other, image).logits, expected.logits)
    other.load_state_dict(load_file(tmp_path / "method.safetensors"))
    assert torch.equal(answer(other, image).logits, expected.logits)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_the_dense_network_fit_the_network_in_a_method(name: str) -> None:
    method, plain = make(name), ordinary(name)
    method.network.load_state_dict(plain.state_dict())
    plain.load_state_dict(method.network.state_dict())
