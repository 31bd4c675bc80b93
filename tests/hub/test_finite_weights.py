"""Weights that are no numbers: every loader names the file and the tensor."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import foveal
from commands import refused, run, small_model
from foreign import Strided, UNet
from foveal.adaptive.opening import load_weights
from foveal.calibration.export import export_program
from foveal.data.augmentation import Augment
from foveal.data.batches import Batches
from foveal.hub.checkpoint import load_model
from foveal.kernels import build
from foveal.methods import Dense
from foveal.models.nano import NanoEncoder
from foveal.models.weights import load_encoder
from foveal.program import Program, load_program
from foveal.program.file import read_tables
from foveal.program.spec import native
from foveal.storage.finite import check_finite
from foveal.training.loop import CHECKPOINT, Schedule, train
from samples import Scenes, headless, nano

VALUES = math.nan, math.inf, -math.inf


def spoil(path: Path, choose: Callable[[str], bool], value: float = math.nan) -> str:
    """Put one bad number into the first tensor that is chosen; return its name."""
    state = load_file(path)
    name = next(key for key in sorted(state) if choose(key))
    state[name].view(-1)[-1] = value
    save_file(state, path, {"state": '{"step": 2}'})
    return name


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("ending", ["running_var", "running_mean", "weight", "bias"])
def test_a_model_of_ours(ending: str, value: float, tmp_path: Path) -> None:
    path = small_model(tmp_path)
    name = spoil(path, lambda key: key.endswith(ending), value)
    with pytest.raises(ValueError, match=rf"{path.name}: '{name}' holds NaN or infinity \(1 of"):
        load_model(path)


def test_the_command_line_ends_with_a_sentence(tmp_path: Path) -> None:
    path = small_model(tmp_path)
    name = spoil(path, lambda key: key.endswith("running_var"))
    said = refused(run("segment", Path("tests") / "absent.png", "--model", path, "--method", "dense"))
    assert said.startswith(f"{path}: '{name}' holds NaN")


def test_an_adaptive_model(tmp_path: Path) -> None:
    foveal.adapt(UNet()).save_pretrained(tmp_path)
    name = spoil(tmp_path / "model.safetensors", lambda key: key.endswith("running_var"))
    with pytest.raises(ValueError, match=rf"model.safetensors: '{name}' holds NaN"):
        foveal.AdaptiveModel.from_pretrained(tmp_path, network=UNet())


def with_mask(value: float, name: str = "mask") -> UNet:
    network = UNet()
    network.register_buffer(name, torch.tensor([0.0, value]))
    return network


def test_masks_of_attention_may_hold_minus_infinity(tmp_path: Path) -> None:
    foveal.adapt(with_mask(-math.inf)).save_pretrained(tmp_path)
    again = foveal.AdaptiveModel.from_pretrained(tmp_path, network=with_mask(0.0))
    assert again.network.mask.tolist() == [0.0, -math.inf]
    load_weights(with_mask(0.0), tmp_path / "model.safetensors")
    for value in (math.nan, math.inf):
        spoil(tmp_path / "model.safetensors", lambda key: key == "mask", value)
        with pytest.raises(ValueError, match="'mask' holds NaN or infinity"):
            foveal.AdaptiveModel.from_pretrained(tmp_path, network=with_mask(0.0))


@pytest.mark.parametrize(
    ("value", "name"),
    [(math.nan, "mask"), (math.inf, "mask"), *((-math.inf, n) for n in ("weight", "bias", "running_var"))],
)
def test_no_other_buffer_may(value: float, name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' holds NaN or infinity"):
        foveal.adapt(with_mask(value, name))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_a_function(suffix: str, tmp_path: Path) -> None:
    state = UNet().state_dict()
    state["last.1.running_mean"][0] = math.inf
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    with pytest.raises(ValueError, match=rf"weights{suffix}: 'last.1.running_mean' holds NaN"):
        load_weights(UNet(), path)


def test_weights_of_an_encoder(tmp_path: Path) -> None:
    encoder = NanoEncoder()
    path = tmp_path / "encoder.safetensors"
    save_file(encoder.state_dict(), path)
    name = spoil(path, lambda key: key.endswith("running_var"))
    with pytest.raises(ValueError, match=rf"encoder.safetensors: '{name}' holds NaN"):
        load_encoder(encoder, path)


@pytest.mark.parametrize("part", ["network.", "average.", "exp_avg."])
def test_a_checkpoint_of_a_run(part: str, tmp_path: Path) -> None:
    def go_on(steps: int) -> None:
        batches = Batches(Scenes(2), Augment((32, 32)), 1, seed=1)
        train(Dense(headless(len(Scenes.classes))), batches, Schedule(steps, 1e-3, save_every=2), tmp_path)

    go_on(2)
    name = spoil(tmp_path / CHECKPOINT, lambda key: key.startswith(part) and key.endswith("weight"))
    with pytest.raises(ValueError, match=rf"{CHECKPOINT}: '{name}' holds NaN"):
        go_on(3)


@pytest.mark.skipif(not build.available(), reason="no compiler")
@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_a_program_file_in_python_and_in_c(precision: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.foveal"
    images = [torch.rand(1, 3, 64, 96)]
    export_program(nano(), path, precision, images)
    tables, _ = read_tables(path)
    step = tables.steps[3]
    data = bytearray(path.read_bytes())
    numbers = np.frombuffer(data, np.float32, len(tables.numbers), len(data) - tables.numbers.nbytes)
    numbers[step.bias] = math.nan  # the file's own bytes
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"tiny.foveal: '{tables.names[3]}.bias' holds NaN"):
        load_program(path)
    error = ctypes.create_string_buffer(256)
    library = native()
    library.foveal_load.restype = ctypes.c_void_p
    assert not library.foveal_load(str(path).encode(), error, ctypes.c_size_t(len(error)))
    assert error.value.decode() == f"number {step.bias} holds NaN or infinity"


@pytest.mark.skipif(not build.available(), reason="no compiler")
def test_a_program_with_a_bound_that_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "tiny.foveal"
    export_program(nano(), path)
    tables, _ = read_tables(path)
    tables.steps[3].low = math.nan
    with pytest.raises(ValueError, match="step 3 has a bound that holds NaN"):
        Program(tables)


@pytest.mark.parametrize("name", ["body.0.1.running_var", "head.weight"])
def test_a_network_in_memory(name: str) -> None:
    network = Strided()
    network.state_dict()[name].view(-1)[0] = math.nan
    with pytest.raises(ValueError, match=rf"network Strided: '{name}' holds NaN"):
        foveal.adapt(network)


def test_a_network_without_numbers() -> None:
    with torch.device("meta"):
        network = UNet()
    with pytest.raises(ValueError, match=r"network UNet: .* is on the meta device"):
        foveal.adapt(network)


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([1.0, math.nan], dtype=torch.float16),
        torch.tensor([1.0, math.inf], dtype=torch.bfloat16),
        torch.tensor([1.0, math.nan]).to(torch.float8_e4m3fn),
        torch.tensor([1.0, complex(0, math.nan)]),
        torch.tensor([1.0, math.nan]).to_sparse(),
        nn.Parameter(torch.tensor([math.nan])),
        np.array([1.0, math.nan], np.float16),
    ],
    ids=lambda value: str(value.dtype),
)
def test_every_kind_of_number(value: Tensor) -> None:
    with pytest.raises(ValueError, match="here: 'x' holds NaN or infinity"):
        check_finite({"x": value}, "here")


def test_finite_and_whole_numbers_pass() -> None:
    check_finite({"a": torch.ones(3), "b": torch.tensor([1]), "c": torch.ones(0), "d": None}, "here")
