"""Weights of encoders from files, and the calibration of their norms."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from encoders import assert_same_function, maps
from foveal.models.efficientnet import EfficientNetLiteEncoder
from foveal.models.mobilenet import MobileNetV2Encoder
from foveal.models.nano import NanoEncoder
from foveal.models.resnet import ResNetEncoder
from foveal.models.weights import calibrate_norms, load_encoder
from samples import shaken

IMAGENET = Path(os.environ.get("FOVEAL_WEIGHTS", "")) / "resnet18_imagenet_bnfolded_stem_layer3_fp16.pt"

ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "nano": NanoEncoder,
    "resnet18": lambda: ResNetEncoder(18, stages=2),
    "resnet50": lambda: ResNetEncoder(50, stages=1),
    "mobilenet": lambda: MobileNetV2Encoder(0.25),
    "efficientnet": lambda: EfficientNetLiteEncoder("lite0"),
}


@pytest.fixture(params=ENCODERS)
def build(request: pytest.FixtureRequest) -> Callable[[], nn.Module]:
    """Give a function that makes encoders of one kind, random ones."""
    return lambda: shaken(ENCODERS[request.param]()).eval()


def folded(encoder: nn.Module) -> dict[str, Tensor]:
    """State of an encoder whose every norm was folded into the convolution before it, as exporters do."""
    state = encoder.state_dict()
    layers = list(encoder.named_modules())
    convolutions = [(name, layer) for name, layer in layers if isinstance(layer, nn.Conv2d)]
    norms = [(name, layer) for name, layer in layers if isinstance(layer, nn.BatchNorm2d)]
    for (conv, _), (name, norm) in zip(convolutions, norms, strict=True):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        state[f"{conv}.weight"] = (state[f"{conv}.weight"] * scale[:, None, None, None]).detach()
        state[f"{conv}.bias"] = (norm.bias - scale * norm.running_mean).detach()
        for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            del state[f"{name}.{key}"]
    return state


# Loading


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_plain_weights_give_the_same_function(
    suffix: str, build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    source, encoder, path = build(), build(), tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(source.state_dict(), path)
    assert load_encoder(encoder, path) == []
    assert_same_function(encoder, source, 1e-6)


def test_folded_norms_give_the_same_function(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    source, encoder = build(), build()
    torch.save(folded(source), tmp_path / "weights.pt")
    assert load_encoder(encoder, tmp_path / "weights.pt") == []
    assert_same_function(encoder, source)


def test_half_precision_wrappers_and_classifiers_are_understood(tmp_path: Path) -> None:
    source, encoder = shaken(NanoEncoder()).eval(), NanoEncoder().eval()
    state = {key: value.half() for key, value in source.state_dict().items()} | {"fc.weight": torch.ones(9)}
    for wrapper in ("state_dict", "model"):
        torch.save({wrapper: state, "epoch": 3}, tmp_path / "weights.pt")
        assert load_encoder(encoder, tmp_path / "weights.pt") == []
    assert all(value.dtype in (torch.float32, torch.int64) for value in encoder.state_dict().values())
    assert_same_function(encoder, source, 1e-2)


def test_what_the_file_lacks_is_named_and_stays(tmp_path: Path) -> None:
    encoder = shaken(NanoEncoder())
    state = {key: torch.zeros_like(value) for key, value in encoder.state_dict().items() if "stem" in key}
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    torch.save(state, tmp_path / "weights.pt")
    missing = load_encoder(encoder, tmp_path / "weights.pt")
    assert set(missing) == {key for key in before if "stem" not in key and "tracked" not in key}
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, state.get(key, before[key]))


# Calibration


def test_calibration_keeps_the_function(build: Callable[[], nn.Module]) -> None:
    source = build()
    encoder = build()
    encoder.load_state_dict(source.state_dict())
    calibrate_norms(encoder, [torch.randn(2, 3, 64, 64) for _ in range(2)])
    assert_same_function(encoder, source)
    assert not encoder.training


def test_calibrated_statistics_are_those_of_all_batches_together() -> None:
    encoder = shaken(NanoEncoder()).eval()
    batches = [torch.randn(n, 3, 64, 64) * 2 + 1 for n in (1, 3)]
    seen: dict[str, list[Tensor]] = defaultdict(list)
    norms = {name: layer for name, layer in encoder.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    handles = [
        norm.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0]))
        for name, norm in norms.items()
    ]
    for batch in batches:
        maps(encoder, batch)
    for handle in handles:
        handle.remove()
    calibrate_norms(encoder, iter(batches))
    for name, norm in norms.items():
        x = torch.cat(seen[name]).double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(norm.running_mean.double(), x.mean(1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.running_var.double(), x.var(1, correction=0), rtol=1e-4, atol=1e-6)


def test_after_calibration_training_and_testing_see_nearly_the_same_network(tmp_path: Path) -> None:
    """The aim of it: a folded file, used with batch statistics, is another network."""
    source = shaken(NanoEncoder()).eval()
    torch.save(folded(source), tmp_path / "weights.pt")
    encoder, images = NanoEncoder(), torch.randn(4, 3, 64, 64)
    load_encoder(encoder, tmp_path / "weights.pt")
    expected = maps(source, images)[-1]
    raw = (maps(encoder.train(), images)[-1] - expected).abs().mean()
    load_encoder(encoder, tmp_path / "weights.pt")
    calibrate_norms(encoder, [images])
    assert encoder.training
    calibrated = (maps(encoder, images)[-1] - expected).abs().mean()
    assert calibrated < 1e-3 * expected.abs().mean() < raw


def test_channels_that_are_always_alike_stay_finite() -> None:
    encoder = shaken(NanoEncoder()).eval()
    with torch.no_grad():
        encoder.stem[0][0].weight[:3] = 0
    before = maps(encoder, torch.ones(1, 3, 32, 32))
    calibrate_norms(encoder, [torch.randn(2, 3, 32, 32)])
    after = maps(encoder, torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_no_batches_change_nothing() -> None:
    encoder = shaken(NanoEncoder()).eval()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    calibrate_norms(encoder, [])
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.skipif(not IMAGENET.is_file(), reason="FOVEAL_WEIGHTS names no folder with the file")
def test_weights_of_imagenet_fit_and_keep_activations_in_range() -> None:
    encoder = ResNetEncoder(18, stages=3).eval()
    assert load_encoder(encoder, IMAGENET) == []
    calibrate_norms(encoder, [torch.randn(1, 3, 64, 64)])
    assert all(0 < x.std().item() < 100 for x in maps(encoder, torch.randn(1, 3, 64, 64)))
