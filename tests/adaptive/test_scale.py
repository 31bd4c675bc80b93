from __future__ import annotations

from pathlib import Path

import pytest
import torch

import foveal
from foreign import UNet, lively, picture
from foveal.adaptive import AdaptiveModel
from foveal.methods.scaling import pixel_share, shrink, shrunk_size

SIZE, SCALE = (256, 320), 0.6
SHARE = pixel_share(SIZE, SCALE)


@pytest.fixture(scope="module")
def whole() -> AdaptiveModel:
    return foveal.adapt(lively(UNet()))


@pytest.fixture(scope="module")
def scaled() -> AdaptiveModel:
    return foveal.adapt(lively(UNet()), scale=SCALE, source="foreign:make_unet", arguments={"classes": 4})


def test_a_scaled_model_answers_for_the_whole_image_within_its_budget(scaled: AdaptiveModel) -> None:
    out = scaled(picture(size=SIZE), budget=0.25, always_adapt=True)
    assert out.labels.shape[1:] == SIZE
    assert out.scale == SCALE
    tile = scaled.spec.tile**2 / (SIZE[0] * SIZE[1])
    assert 0.1 < float(out.work) <= 0.25 + tile


def test_with_work_to_spare_it_is_the_network_on_the_shrunk_image(
    whole: AdaptiveModel, scaled: AdaptiveModel
) -> None:
    image = picture(size=SIZE)
    small = whole(shrink(image, shrunk_size(SIZE, SCALE)), budget=1.0)
    out = scaled(image, budget=0.9)
    assert float(out.work) == pytest.approx(SHARE)
    expected = torch.nn.functional.interpolate(
        small.logits, size=out.logits.shape[2:], mode="bilinear", align_corners=False
    )
    assert torch.allclose(out.logits, expected, atol=1e-4)


def test_the_scale_is_saved_with_the_model(scaled: AdaptiveModel, tmp_path: Path) -> None:
    scaled.save_pretrained(tmp_path / "half")
    again = foveal.AdaptiveModel.from_pretrained(tmp_path / "half", trust_source=True)
    assert again.spec.scale == SCALE
    assert f"images shrunk to {SCALE:g} of their sides" in (tmp_path / "half" / "README.md").read_text()
    image = picture(size=SIZE)
    assert torch.equal(again(image, budget=0.25).labels, scaled(image, budget=0.25).labels)


@pytest.mark.parametrize("scale", [0.0, 1.5, -1.0])
def test_a_scale_that_cannot_be_is_said(scale: float) -> None:
    with pytest.raises(ValueError, match=r"scale is .*; give a value from 0\.02 to 1"):
        foveal.adapt(UNet(), scale=scale)
