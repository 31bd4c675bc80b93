from __future__ import annotations

from pathlib import Path

import pytest
import torch

import foveal
from foreign import Attending, Strided, UNet, lively, picture
from foveal.program import NotCompiled
from foveal.runtime import load_program

IMAGES = [picture(size=(256, 300), seed=seed)[0] for seed in range(4)]


def test_calibration_finds_settings_and_keeps_a_risk(tmp_path: Path) -> None:
    model, seen = foveal.adapt(lively(Strided())), []
    profile = model.calibrate(IMAGES, report=lambda *done: seen.append(done[0]))
    assert profile is model.profile
    assert profile.images == 4
    assert "risk" in seen
    out = model(IMAGES[0], risk=0.5)
    assert out.labels.shape == (1, 256, 300)
    assert (profile.chosen_on, profile.calibrated_on, profile.risk_of) == (1, 3, "dense")
    share = profile.risk.choose(0.01).share
    assert 0 < share < 0.05  # three images keep a small risk by adapting few
    small = model(torch.stack([picture(size=(256, 300), seed=k)[0] for k in range(4)]), risk=0.01)
    assert float(small.work.min()) <= 1
    assert small.labels.shape == (4, 256, 300)
    model.save_pretrained(tmp_path / "unet")
    again = foveal.AdaptiveModel.from_pretrained(tmp_path / "unet", network=Strided())
    assert again.profile == profile
    assert torch.equal(again(IMAGES[0], risk=0.5).logits, out.logits)
    assert "| coarse_to_fine |" in (tmp_path / "unet" / "README.md").read_text()
    assert not list((tmp_path / "unet").glob(".*"))


def test_int8_needs_images_and_nothing_else(tmp_path: Path) -> None:
    model = foveal.adapt(lively(Strided()))
    dense = model(IMAGES[0], budget=1.0).labels
    model.calibrate(IMAGES, precision="int8")
    assert model.engine.name == "program int8"
    out = model(IMAGES[0], budget=1.0)
    assert float((out.labels == dense).float().mean()) > 0.9
    model.save_pretrained(tmp_path / "unet")
    again = foveal.AdaptiveModel.from_pretrained(tmp_path / "unet", network=Strided())
    assert again.engine.name == "program int8"
    assert torch.equal(again(IMAGES[0], budget=0.4).labels, model(IMAGES[0], budget=0.4).labels)


def test_bytes_of_any_channels_calibrate() -> None:
    model = foveal.adapt(lively(UNet(1)))
    images = [
        (picture(1, size, seed=k)[0] * 255).to(torch.uint8) for k, size in enumerate([(192, 200), (201, 193)])
    ]
    model.calibrate(images)
    assert model(images[0], budget=0.5).labels.shape == (1, 192, 200)
    model.calibrate(images, precision="int8")
    assert model.engine.name == "program int8"
    assert model(images[1], budget=0.5).labels.shape == (1, 201, 193)


def test_a_precision_without_a_program_is_refused() -> None:
    model = foveal.adapt(lively(Attending()))
    with pytest.raises(ValueError, match="has no program in int8: "):
        model.calibrate(IMAGES, precision="int8")
    assert model.spec.precision == "f32"
    with pytest.raises(ValueError, match="Attending has no program in bf16: "):
        foveal.adapt(lively(Attending()), precision="bf16")


def test_what_cannot_be_calibrated_is_said() -> None:
    model = foveal.adapt(lively(Strided()))
    with pytest.raises(ValueError, match="there are no images to adapt to"):
        model.calibrate([])
    with pytest.raises(ValueError, match="give larger images or a smaller tile"):
        model.calibrate([picture(size=(20, 20))[0]])
    with pytest.raises(ValueError, match=r"give a tensor \[N, 3, H, W\]"):
        model.calibrate([picture(4)[0]])
    with pytest.raises(ValueError, match=r"images are a str; give a list of tensors .*names of files"):
        model.calibrate("images")  # type: ignore[arg-type]


def test_bf16_needs_no_images() -> None:
    model = foveal.adapt(lively(Strided()), precision="bf16")
    assert model.engine.name == "program bf16"
    assert model(IMAGES[0], budget=0.4).labels.shape == (1, 256, 300)


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_what_is_exported_answers_like_the_model(precision: str, tmp_path: Path) -> None:
    model = foveal.adapt(lively(Strided()), scale=0.75, classes=("soil", "crop", "weed", "stone"))
    model.calibrate(IMAGES, precision=precision)  # type: ignore[arg-type]
    model.export(tmp_path / "weeds.foveal")
    program = load_program(tmp_path / "weeds.foveal")
    assert program.info and program.info.classes == ("soil", "crop", "weed", "stone")
    found = program.segment(IMAGES[0][None].numpy(), budget=0.5)
    out = model(IMAGES[0], budget=0.5, always_adapt=True)
    assert torch.equal(torch.from_numpy(found.labels), out.labels.to(torch.uint8))
    assert found.work[0] == pytest.approx(float(out.work[0]))


def test_sides_that_a_network_needs_are_kept_in_its_file(tmp_path: Path) -> None:
    model = foveal.adapt(lively(Strided()), preprocess=foveal.Preprocess(multiple=32))
    model.export(tmp_path / "weeds.foveal")
    program = load_program(tmp_path / "weeds.foveal")
    image = picture(size=(100, 128)).numpy()
    with pytest.raises(ValueError, match="32"):
        program.segment(image, budget=0.5)


def test_a_network_without_a_program_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(NotCompiled, match="Attending has no program to export: "):
        foveal.adapt(lively(Attending())).export(tmp_path / "no.foveal")
    assert not list(tmp_path.iterdir())
