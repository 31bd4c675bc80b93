"""What values show in a notebook and in a terminal."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import foveal
from foveal.geometry.plan import SKIP, Plan
from foveal.methods import CoarseToFine
from samples import nano


def pictures(html: str) -> list[Image.Image]:
    """Read the pictures of some HTML."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(code))) for code in found]


def test_a_plan_is_a_picture_an_image() -> None:
    levels = torch.tensor([[[1, 1, 0], [1, 1, 0], [0, SKIP, 0]], [[0] * 3] * 3], dtype=torch.int8)
    plan = Plan(levels, 32, (96, 96))
    shown = plan._repr_html_()
    one, two = (np.asarray(picture.convert("RGB")) for picture in pictures(shown))
    assert one.shape == two.shape and len({tuple(c) for c in one.reshape(-1, 3)}) == 3
    assert (two == two[0, 0]).all() and "tile 32, 96x96 px, work 1.000" in shown


def test_a_prediction_is_shown_with_its_work() -> None:
    image = torch.rand(2, 3, 64, 96)
    prediction = CoarseToFine(nano(5), 0.6, 32, 1).eval()(image)
    first, _ = pictures(prediction._repr_html_())
    assert (np.asarray(first) == prediction.labels[0].numpy()).all()
    assert f"work {prediction.trace.work[0]:.3f} of dense" in prediction._repr_html_()
    assert prediction.to_pil(1).size == (96, 64)
    plain, opaque = (np.asarray(prediction.overlay(image, share, index=1)) for share in (0.0, 1.0))
    assert abs(plain / 255 - image[1].permute(1, 2, 0).numpy()).max() < 0.003
    assert (opaque == np.asarray(prediction.to_pil(1).convert("RGB"))).all()
    with pytest.raises(ValueError, match=r"give the colour image \[3, 64, 96\]"):
        prediction.overlay(image[:, :1])


def test_cost_is_a_sentence() -> None:
    method, image = CoarseToFine(nano(5), 0.6, 32, 1).eval(), torch.rand(1, 3, 64, 96)
    counted, timed = foveal.measure(method, image), foveal.measure(method, image, repeat=2)
    share = counted.macs.total / counted.dense_macs.total
    assert str(counted).endswith(f"{share:.1%} of the dense network's; not timed.")
    words = r"; [\d.]+ ms \(p95 [\d.]+\) beside [\d.]+ ms dense, [\d.]+ times as fast\.$"
    assert re.search(words, str(timed))
    assert "GMAC" in timed._repr_html_()
