from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import foveal
from foreign import Strided, UNet, lively, picture
from foveal.adaptive import AdaptiveModel, AdaptiveResult
from foveal.calibration import latency
from foveal.data.image import save_image


@pytest.fixture(scope="module")
def model() -> AdaptiveModel:
    return foveal.adapt(lively(UNet()), classes=["soil", "crop", "weed", "stone"])


@pytest.fixture(scope="module")
def out(model: AdaptiveModel) -> AdaptiveResult:
    return model(picture(size=(256, 321), count=2), budget=0.4)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, r"no limit is given; give exactly one of budget, latency_ms, risk, threshold"),
        ({"budget": 0.4, "risk": 0.1}, r"budget=0.4, risk=0.1 is given; give exactly one"),
        ({"budget": 0}, "budget is 0; it must be above 0 and at most 1"),
        ({"budget": 1.5}, "budget is 1.5; it must be above 0 and at most 1"),
        ({"budget": "0.4"}, "budget is '0.4'; give a number"),
        ({"latency_ms": -1}, "latency is -1 ms; it must be above 0"),
        ({"risk": 0.02}, r"call model.calibrate\(images\) first"),
    ],
)
def test_exactly_one_limit_is_given(model: AdaptiveModel, limits: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        model(picture(), **limits)


def test_another_budget_makes_nothing_anew(model: AdaptiveModel) -> None:
    image = picture(size=(256, 320))
    engine, first = model.engine, model(image, budget=0.3)
    model(image, budget=0.6)
    again = model(image, budget=0.3)
    assert model.engine is engine
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.work, again.work)


def test_a_threshold_says_what_is_refined(model: AdaptiveModel) -> None:
    image = picture(size=(256, 320))
    few, many = model(image, threshold=1e9), model(image, threshold=0.0)
    assert set(few.levels.flatten().tolist()) == {2}
    assert float((many.levels == 0).float().mean()) > 0.5
    assert float(few.work[0]) < float(many.work[0])
    small = model(picture(size=(20, 30)), threshold=0.0)
    assert "a first pass saves nothing" in small.reason
    blocks = foveal.adapt(lively(Strided()), method="segblocks")
    with pytest.raises(
        ValueError, match=r'method segblocks has no threshold; give budget .*"coarse_to_fine"'
    ):
        blocks(image, threshold=1.0)
    with pytest.raises(ValueError, match="method segblocks keeps no risk"):
        blocks(image, risk=0.1)


def test_a_latency_is_kept_by_the_cost_model(model: AdaptiveModel, monkeypatch: pytest.MonkeyPatch) -> None:
    image, asked = picture(size=(256, 320)), []
    known = latency.CostModel.fit(
        [
            latency.Measurement((256, 320), 100.0, ((0.25, 30.0), (0.5, 55.0), (0.8, 85.0))),
            latency.Measurement((512, 512), 320.0, ((0.25, 96.0), (0.5, 176.0), (0.8, 272.0))),
            latency.Measurement((128, 128), 20.0, ((0.25, 6.0), (0.5, 11.0), (0.8, 17.0))),
        ]
    )
    monkeypatch.setattr("foveal.calibration.selector.cost_model", lambda *a: asked.append(a) or known)
    some, all_ = model(image, latency_ms=60.0), model(image, latency_ms=500.0)
    assert asked
    assert some.predicted_ms is not None
    assert some.predicted_ms <= 60.0
    assert 0.1 < float(some.work[0]) < 0.7
    assert "within the 500 ms asked for" in all_.reason


@pytest.mark.parametrize("channels", [1, 3])
def test_a_latency_is_measured_for_any_network(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 1)
    model = foveal.adapt(lively(UNet(channels)))
    found = model(picture(channels, (256, 300)), latency_ms=1e5)
    assert found.predicted_ms is not None


def test_a_list_of_images_of_any_sizes(model: AdaptiveModel) -> None:
    images = [picture(size=size)[0] for size in ((203, 270), (64, 64), (301, 99))]
    found = model(images, budget=0.5)
    assert [tuple(out.labels.shape) for out in found] == [(1, 203, 270), (1, 64, 64), (1, 301, 99)]
    assert torch.equal(found[0].labels, model(images[0], budget=0.5).labels)
    with pytest.raises(ValueError, match="there are 3 images and 1 masks; give one mask per image"):
        model(images, budget=0.5, mask=[torch.ones(203, 270, dtype=torch.bool)])


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (torch.rand(2, 4, 32, 32), r"\[2, 4, 32, 32\]; give a tensor \[N, 3, H, W\]"),
        (torch.rand(32, 32), r"\[32, 32\]; give a tensor"),
        (torch.rand(0, 3, 32, 32), "at least one pixel"),
        (torch.rand(32, 40, 3), r"\[32, 40, 3\], its channels last; give a tensor .*an array \[H, W, 3\]"),
        (np.zeros((3, 32, 32), np.uint8), r"image is an array \[3, 32, 32\]; give .*torch.from_numpy"),
        (np.zeros((2, 32, 32, 3), np.uint8), r"image is an array \[2, 32, 32, 3\]; give .*a list of them"),
        (np.zeros((32, 32, 4), np.uint8), "the image has 4 bands and the network takes 3"),
        (np.zeros((0, 32, 3), np.uint8), r"the image holds an array \[0, 32, 3\]; give \[H, W\]"),
        (np.full((32, 32, 3), 255.0), r"of float64 from 255 to 255; give uint8, .*divide 0..255 by 255"),
        (np.full((32, 32, 3), np.nan), "from nan to nan"),
        (np.full((32, 32, 3), 7), "image is an array of int64; give uint8, uint16, or floats in 0..1"),
        (np.full((32, 32, 3), 1j), "image is an array of complex128; give uint8"),
        ("missing.jpg", r"missing.jpg does not exist"),
        (["missing.jpg"], r"missing.jpg does not exist"),
        (b"street", r"image is a bytes; give a tensor .*the name of a file, or a list of images"),
        ([0.5], "image is a float; give a tensor"),
        (None, "image is a NoneType; give a tensor"),
        (Path(__file__).parent, "is a folder, not an image file"),
    ],
)
def test_what_is_no_image_is_refused(model: AdaptiveModel, image: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        model(image, budget=0.4)


@pytest.mark.parametrize(
    "kind", ["name", "path", "pillow", "bytes", "grey", "uint16", "floats", "list", "rgba"]
)
def test_images_are_taken_as_files_hold_them(model: AdaptiveModel, kind: str, tmp_path: Path) -> None:
    """The answer is that to what `foveal.read_image` makes of a file that holds the same."""
    values = (picture(size=(96, 130))[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    path = tmp_path / "image.png"
    made: dict[str, Any] = {
        "uint16": values.astype(np.uint16) * 257,
        "floats": (values / 255).astype(np.float32),
    }
    if kind in made:
        np.save(path := tmp_path / "image.npy", made[kind])
    elif kind == "rgba":
        Image.fromarray(np.dstack([values, values[:, :, 0]])).save(path)
    else:
        Image.fromarray(values[:, :, 0] if kind == "grey" else values).save(path)
    with Image.open(path) if kind in ("pillow", "rgba") else nullcontext() as opened:
        given = {"name": str(path), "path": path, "pillow": opened, "rgba": opened, "bytes": values, **made}
        given |= {"grey": values[:, :, 0], "list": [str(path), values]}
        found = model(given[kind], budget=0.4)
    expected = model(foveal.read_image(path), budget=0.4)
    for one in found if kind == "list" else [found]:
        assert torch.equal(one.logits, expected.logits)
        assert torch.equal(one.work, expected.work)
    if kind != "list":
        overlaid = expected.overlay(foveal.read_image(path)).tobytes()
        assert kind in ("pillow", "rgba") or expected.overlay(given[kind]).tobytes() == overlaid
    assert not torch.equal(model(torch.zeros(3, 96, 130), budget=0.4).logits, expected.logits)


def test_a_network_of_one_channel_takes_a_photo(tmp_path: Path) -> None:
    model = foveal.adapt(lively(UNet(1)))
    photo = (picture(size=(96, 130))[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    expected = model(foveal.read_image(tmp_path / "a.png", channels=1), budget=0.4)
    assert torch.equal(model(photo, budget=0.4).logits, expected.logits)


def test_a_damaged_image_of_pillow_is_refused(model: AdaptiveModel, tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    with (
        Image.open(tmp_path / "b.png") as image,
        pytest.raises(ValueError, match="the image is damaged or cut"),
    ):
        model(image, budget=0.4)


def test_calibration_takes_files(tmp_path: Path) -> None:
    model, again = foveal.adapt(lively(Strided())), foveal.adapt(lively(Strided()))
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for number, file in enumerate(files):
        save_image(picture(size=(128, 160), count=number + 1)[number], file)
    found, expected = model.calibrate(files), again.calibrate([foveal.read_image(file) for file in files])
    assert found.images == expected.images == 2
    assert found.class_weights == expected.class_weights


def test_the_result_says_everything(out: AdaptiveResult) -> None:
    assert out.labels.shape == out.confidence.shape == (2, 256, 321)
    assert out.levels.shape == (2, 8, 11)
    assert out.work.shape == (2,)
    assert out.plan is not None
    probability = out.logits.softmax(1)
    assert torch.equal(out.confidence, probability.amax(1))
    differs = probability.argmax(1) != out.labels
    assert float(differs.float().mean()) < 1e-3  # rounding, where two classes are alike
    assert out.macs > 0
    assert str(out).startswith("2 x 256x321 px, work 0.")
    with pytest.raises(dataclasses.FrozenInstanceError):
        out.labels = out.levels  # type: ignore[misc]


def test_the_result_is_a_picture(out: AdaptiveResult, model: AdaptiveModel) -> None:
    labels = out.to_pil(1)
    assert labels.mode == "P"
    assert torch.equal(torch.tensor(list(labels.tobytes()), dtype=torch.uint8).view(256, 321), out.labels[1])
    first = int(out.labels[1, 0, 0])
    assert labels.convert("RGB").getpixel((0, 0)) == model.spec.palette[first]
    image = picture(size=(256, 321), count=2)
    assert out.overlay(image, opacity=1.0).tobytes() == out.to_pil().convert("RGB").tobytes()
    plain = out.overlay((image * 255).to(torch.uint8), opacity=0.0, index=1)
    assert plain.getpixel((5, 7)) == tuple((image[1, :, 7, 5] * 255).to(torch.uint8).tolist())
    assert isinstance(plain, Image.Image)
    with pytest.raises(ValueError, match=r"image is \[1, 8, 8\]; give the colour image \[3, 256, 321\]"):
        out.overlay(torch.rand(1, 8, 8))


def test_the_result_shows_itself_in_a_notebook(out: AdaptiveResult) -> None:
    html = out._repr_html_()
    assert html.count("data:image/png;base64,") == 2
    assert "work 0." in html
    assert "crop" in html or "weed" in html or "soil" in html or "stone" in html


def test_small_images_run_dense_and_say_so(model: AdaptiveModel) -> None:
    out = model(picture(size=(40, 50)), budget=0.2)
    assert "small for tiles of 32 px" in out.reason
    assert out.plan is None
    assert set(out.levels.flatten().tolist()) == {0}


@pytest.mark.parametrize("method", ["segblocks", "dense"])
def test_other_methods(method: str) -> None:
    model, image = foveal.adapt(lively(UNet()), method=method), picture(size=(300, 400))
    out = model(image, budget=0.5)
    assert out.labels.shape == (1, 300, 400)
    assert (float(out.work[0]) < 0.6) == (method == "segblocks")


def test_what_is_trained_is_not_run(model: AdaptiveModel) -> None:
    with pytest.raises(ValueError, match=r"in training mode; call model.eval\(\)"):
        foveal.adapt(lively(Strided())).train()(picture(), budget=0.4)


def test_changed_weights_are_noticed() -> None:
    model, image = foveal.adapt(lively(Strided())), picture()
    before = model(image, budget=0.4)
    with torch.no_grad():
        model.network.head.bias[1] += 100  # type: ignore[union-attr, operator, index]
    assert set(model(image, budget=0.4).labels.flatten().tolist()) == {1}
    assert set(before.labels.flatten().tolist()) != {1}
