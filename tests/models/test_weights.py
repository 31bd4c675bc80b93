from __future__ import annotations

import os
import pickle
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from foveal.models.efficientnet import EfficientNetLiteEncoder
from foveal.models.mobilenet import MobileNetV2Encoder
from foveal.models.nano import NanoEncoder
from foveal.models.resnet import ResNetEncoder
from foveal.models.weights import WeightsError, calibrate_norms, load_encoder, read_state
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


@torch.no_grad()
def maps(encoder: nn.Module, image: Tensor) -> list[Tensor]:
    return encoder(image)


def assert_same_function(
    one: nn.Module, other: nn.Module, tolerance: float = 1e-4, size: tuple[int, int] = (48, 64)
) -> None:
    image = torch.randn(1, 3, *size)
    for found, expected in zip(maps(one, image), maps(other, image), strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


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


# Models of timm and torchvision

TIMM: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "resnet18": ("resnet18", lambda: ResNetEncoder(18)),
    "resnet50": ("resnet50", lambda: ResNetEncoder(50)),
    "mobilenetv2": ("mobilenetv2_100", MobileNetV2Encoder),
    "lite1": ("efficientnet_lite1", EfficientNetLiteEncoder),
    "lite1_same": ("tf_efficientnet_lite1", lambda: EfficientNetLiteEncoder("lite1", same_padding=True)),
}


def offline(monkeypatch: pytest.MonkeyPatch, timm: ModuleType, **options: Any) -> list[nn.Module]:
    """Let `timm.create_model` make random models instead of downloading; return those it made."""
    create, made = timm.create_model, []

    def create_model(name: str, pretrained: bool) -> nn.Module:
        assert pretrained
        made.append(shaken(create(name, **options)).eval())
        return made[-1]

    monkeypatch.setattr(timm, "create_model", create_model)
    return made


@pytest.mark.parametrize("kind", TIMM)
@pytest.mark.parametrize("form", ["timm", "file"])
def test_encoders_equal_the_features_of_timm(
    kind: str, form: str, timm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, build = TIMM[kind]
    options = {"bn_eps": 1e-3} if "lite" in kind else {}
    features = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4), **options).eval()
    made = offline(monkeypatch, timm, **options)
    encoder, source = build().eval(), f"timm:{name}"
    if form == "file":
        source = str(tmp_path / "weights.pth")
        torch.save(
            {f"module.{key}": value for key, value in timm.create_model(name, True).state_dict().items()},
            source,
        )
    assert load_encoder(encoder, source) == []
    features.load_state_dict({key: made[0].state_dict()[key] for key in features.state_dict()})
    assert_same_function(
        encoder, features, size=(64, 96)
    )  # at odd sides SAME padding is ours, see mobilenet.py


def test_weights_for_other_normalisation_are_adapted(
    timm: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = offline(monkeypatch, timm, bn_eps=1e-3)
    encoder, own = (
        EfficientNetLiteEncoder("lite1", same_padding=True).eval(),
        EfficientNetLiteEncoder("lite1", True),
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    load_encoder(encoder, "timm:tf_efficientnet_lite1", (mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)))
    own.load_state_dict({key: made[0].state_dict()[key] for key in own.state_dict()})
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found = encoder.bn1(encoder.conv_stem((image - mean.view(3, 1, 1)) / std.view(3, 1, 1)))
        expected = own.eval().bn1(own.conv_stem((image - 0.5) / 0.5))
    torch.testing.assert_close(found[:, :, :-1, :-1], expected[:, :, :-1, :-1], rtol=1e-4, atol=1e-4)


def test_another_padding_is_said(timm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, timm)
    with pytest.warns(
        UserWarning, match="mobilenetv2_100 pads symmetrically and the encoder as TensorFlow does"
    ):
        load_encoder(MobileNetV2Encoder(same_padding=True), "timm:mobilenetv2_100")


def test_names_that_timm_does_not_know_are_refused(timm: ModuleType) -> None:
    for name in ("resnet81", "efficientnet_lite1"):  # the second one has no pretrained weights
        with pytest.raises(
            WeightsError, match=rf"^timm:{name}: timm has no such pretrained weights, or cannot"
        ):
            load_encoder(ResNetEncoder(18), f"timm:{name}")


def test_without_network_a_file_is_recommended(timm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, pretrained: bool) -> nn.Module:
        raise OSError("We couldn't connect to the hub\nand more")

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(WeightsError, match=r"couldn't connect to the hub\); give a name .* give the file$"):
        load_encoder(ResNetEncoder(18), "timm:resnet18")


def test_without_timm_the_extra_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(WeightsError, match=r"timm cannot be imported .* pip install 'foveal\[timm\]'"):
        load_encoder(ResNetEncoder(18), "timm:resnet18")


@pytest.mark.parametrize("depth", [18, 50])
def test_weights_of_torchvision_fit(depth: int, torchvision: ModuleType, tmp_path: Path) -> None:
    theirs = shaken(getattr(torchvision.models, f"resnet{depth}")()).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    encoder = ResNetEncoder(depth).eval()
    assert load_encoder(encoder, tmp_path / "weights.pth") == []
    image = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
    torch.testing.assert_close(maps(encoder, image)[-1], expected)


# Files that do not fit


class Malice:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("malice",)


def contents(tmp_path: Path) -> dict[str, bytes]:
    torch.save({"weight": torch.zeros(100)}, tmp_path / "good.pt")
    return {
        "empty": b"",
        "text": b"not weights at all",
        "zip": (tmp_path / "good.pt").read_bytes()[:200],
        "pickle": pickle.dumps({"weight": [1, 2]}, 2),
        "malice": pickle.dumps(Malice(), 2),
    }


@pytest.mark.parametrize("kind", ["empty", "text", "zip", "pickle", "malice"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".bin"])
def test_damaged_files_are_refused_in_one_line_and_run_no_code(
    kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(contents(tmp_path)[kind])
    with pytest.raises(WeightsError) as error:
        load_encoder(NanoEncoder(), path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "malice").exists()


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"epoch": 3}, {0: torch.zeros(3)}, None])
def test_files_without_a_state_dict_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"weights\.pt: (holds no state dict|no key fits)"):
        load_encoder(NanoEncoder(), tmp_path / "weights.pt")


def test_files_that_are_not_there_or_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pt", tmp_path):
        with pytest.raises(WeightsError, match="no such weights file"):
            read_state(path)


def test_weights_of_something_else_are_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    encoder = NanoEncoder()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"no key fits the encoder; it has keys such as 'stem\.0"):
        load_encoder(encoder, tmp_path / "other.pt")
    state = dict(before, **{"stem.0.0.weight": torch.zeros(16, 3, 5, 5)})
    torch.save(state, tmp_path / "wide.pt")
    message = r"'stem\.0\.0\.weight' is \(16, 3, 5, 5\), the encoder needs \(16, 3, 3, 3\)"
    with pytest.raises(WeightsError, match=message):
        load_encoder(encoder, tmp_path / "wide.pt")
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


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
