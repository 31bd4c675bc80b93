from __future__ import annotations

import re
import runpy
import textwrap
from pathlib import Path

import pytest
import torch

from foreign import picture
from foveal.models.adapters.torchvision import import_torchvision

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_network.py"
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own-network.md").read_text(), re.DOTALL)


def test_the_example_and_its_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    example = runpy.run_path(str(EXAMPLE), run_name="example")
    network = example["train"](example["UNet"](), steps=12)
    image, _ = example["field"](seed=1000)
    images = [example["field"](seed, (160, 192))[0][0] for seed in range(3)]
    names = {**example, "network": network, "image": image, "images": images}
    for block in BLOCKS:
        exec(block, names)
    assert (tmp_path / "own_network.png").stat().st_size > 100
    assert (tmp_path / "own_network" / "model.safetensors").is_file()
    assert torch.equal(names["same"](image, budget=0.4).labels, names["model"](image, budget=0.4).labels)
    example["main"].__globals__["train"] = lambda net: net.eval()
    example["main"]()
    assert "work 1.000  as dense 100.0%" in capsys.readouterr().out


def test_page_and_example_hold_the_same_lines() -> None:
    assert BLOCKS[0] in textwrap.dedent(EXAMPLE.read_text()).replace("\n    ", "\n")


def test_the_example_compiles() -> None:
    import foveal

    example = runpy.run_path(str(EXAMPLE), run_name="example")
    model = foveal.adapt(example["UNet"]().eval())
    assert str(model.engine) == "a compiled program in f32"
    assert model(picture(size=(128, 160)), budget=0.6).labels.shape == (1, 128, 160)


def test_networks_of_segmentation_models_pytorch() -> None:
    import_torchvision()
    smp = pytest.importorskip("segmentation_models_pytorch", exc_type=ImportError)
    import foveal

    net = smp.Unet("resnet18", encoder_weights=None, classes=3).eval()
    model = foveal.adapt(net)
    assert model.spec.shape.multiple == 1  # its decoder takes any size once it is asked to
    assert model.spec.source is not None
    assert model(picture(), budget=0.5).labels.shape == (1, 203, 270)
