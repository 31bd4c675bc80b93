"""What every adapter of a library must keep, and that no other file knows a library."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveal
from foreign import Strided, picture
from foveal.adaptive.preprocess import as_preprocess, find_preprocess
from foveal.adaptive.source import Source, find_source
from foveal.compatibility.logits import follow
from foveal.models.adapters import ADAPTERS, Recognised, recognise, timm_segmenter

SOURCE = Path(foveal.__file__).parent
IMAGE = picture(size=(192, 256))


@dataclass(frozen=True)
class Case:
    """A network of a library.

    Attributes:
        network: The network.
        function: Who makes it again.
        preprocess: What is given as preprocessing; None if the network says it.
        theirs: The library's own preprocessing of images [N, 3, H, W] in 0..1; None if it is inside.
    """

    network: nn.Module
    function: str
    preprocess: Any = None
    theirs: Callable[[Tensor], Tensor] | None = None


def of_smp() -> Case:
    smp = pytest.importorskip("segmentation_models_pytorch", exc_type=ImportError)
    network = smp.Unet("tu-resnet18", encoder_weights=None, classes=4)
    network._hub_mixin_config = {**network._hub_mixin_config, "encoder_weights": "imagenet"}
    own = smp.encoders.get_preprocessing_fn("tu-resnet18", "imagenet")

    def theirs(image: Tensor) -> Tensor:
        rows = own(image.permute(0, 2, 3, 1).numpy() * 255)
        return torch.as_tensor(rows).permute(0, 3, 1, 2).float()

    return Case(network, "segmentation_models_pytorch:Unet", None, theirs)


def of_torchvision() -> Case:
    models = pytest.importorskip("torchvision.models.segmentation")
    network = models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    weights = models.LRASPP_MobileNet_V3_Large_Weights.DEFAULT
    own = weights.transforms(resize_size=None)
    return Case(network, "torchvision.models.segmentation:lraspp_mobilenet_v3_large", weights, own)


def of_transformers() -> Case:
    library = pytest.importorskip("transformers")
    config = library.SegformerConfig(
        num_labels=4, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1], decoder_hidden_size=16
    )
    network = library.SegformerForSemanticSegmentation(config)
    processor = library.SegformerImageProcessor(do_resize=False)

    def theirs(image: Tensor) -> Tensor:
        return processor(list(image), do_rescale=False, return_tensors="pt")["pixel_values"]

    return Case(network, "transformers:SegformerForSemanticSegmentation", processor, theirs)


def of_timm() -> Case:
    pytest.importorskip("timm")
    return Case(timm_segmenter("resnet18", 4, width=32), "foveal.models.adapters:timm_segmenter")


CASES = {
    case.__name__.removeprefix("of_"): case for case in (of_smp, of_torchvision, of_transformers, of_timm)
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, torchvision: object) -> Case:
    """Give a network of every library, its norms alive."""
    found = CASES[request.param]()
    for norm in found.network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
                assert value is not None
                nn.init.uniform_(value, 0.5, 1.5)
    found.network.eval()
    return found


def test_every_adapter_has_a_case() -> None:
    assert len(CASES) == len(ADAPTERS)


def test_it_is_recognised(case: Case) -> None:
    assert sum(adapter.recognise(case.network) is not None for adapter in ADAPTERS) == 1
    known = recognise(case.network)
    assert known.maker is not None
    assert known.maker.function == case.function
    made = Source(known.maker.function, dict(known.maker.arguments)).make()
    shapes = {name: value.shape for name, value in made.state_dict().items()}
    assert shapes == {name: value.shape for name, value in case.network.state_dict().items()}


def test_preprocessing_is_the_librarys_own(case: Case) -> None:
    found = find_preprocess(case.network) if case.preprocess is None else as_preprocess(case.preprocess)
    if case.theirs is None:  # it is inside the network
        assert found.is_identity
        return
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in found.per_channel(3))
    torch.testing.assert_close((IMAGE - mean) / std, case.theirs(IMAGE), rtol=0, atol=2e-6)


@torch.no_grad()
def test_forward_is_the_librarys_own_to_the_bit(case: Case) -> None:
    model = foveal.adapt(case.network, preprocess=case.preprocess)
    mean, std = model.prepared.mean, model.prepared.std
    prepared = IMAGE if mean is None or std is None else (IMAGE - mean) / std
    expected = follow(case.network(prepared), model.spec.shape.path)
    assert torch.equal(model.prepared(IMAGE), expected)
    assert expected.std() > 0


def test_it_is_saved_and_loaded_to_the_bit(case: Case, tmp_path: Path) -> None:
    model = foveal.adapt(case.network, preprocess=case.preprocess)
    model.save_pretrained(tmp_path / "saved")
    again = foveal.AdaptiveModel.from_pretrained(tmp_path / "saved")
    assert again.spec == model.spec
    for budget in (0.6, 1.0):
        assert torch.equal(again(IMAGE, budget=budget).logits, model(IMAGE, budget=budget).logits)


def test_mixed_plans_are_right(case: Case) -> None:
    model = foveal.adapt(case.network, preprocess=case.preprocess)
    shape = model.spec.shape
    report = foveal.check(model.prepared, (192, 256), model.spec.tile, 3, shape.multiple)
    assert report.equal
    assert all(run.difference is not None for run in report.mixed), str(report)


@pytest.mark.slow
def test_transformers_whose_tokens_are_no_maps_are_told_in_one_sentence(torchvision: object) -> None:
    library = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 256}
    network = library.DPTForSemanticSegmentation(library.DPTConfig(num_labels=4, **sizes))
    with pytest.raises(ValueError, match=r"whole map, from 'dpt.embeddings' \(cat\) on, which saves nothing"):
        foveal.adapt(network.eval())


def test_a_network_of_no_library_says_nothing() -> None:
    assert recognise(Strided()) == Recognised()
    assert find_source(Strided()) is None


def test_segmenters_of_timm_train_and_take_any_channels(timm: object) -> None:
    network = timm_segmenter("resnet18", 5, channels=4, width=32)
    assert (network.stride, network.coarsest_stride, network.in_channels) == (4, 32, 4)
    logits = network(torch.rand(2, 4, 75, 101))
    assert logits.shape == (2, 5, 19, 26)
    logits.mean().backward()
    assert all(p.grad is not None for p in network.encoder.body.conv1.parameters())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "no_such_network",
            r"no_such_network: timm makes no encoder of it .*; give a name of timm.list_models",
        ),
        (
            "vit_tiny_patch16_224",
            r"vit_tiny_patch16_224 has maps of strides 16, 16, 16; give an encoder whose",
        ),
    ],
)
def test_encoders_that_do_not_fit_are_said(timm: object, name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        timm_segmenter(name, 5)


def words(path: Path) -> set[str]:
    """Names and strings of a file, without comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    strings = {
        (node.value.lineno, node.value.col_offset)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found: set[str] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            kinds = (tokenize.NAME, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
            if token.type in kinds and token.start not in strings:
                found.add(token.string)
    return found


def test_nothing_else_names_a_library() -> None:
    libraries = [*(adapter.library for adapter in ADAPTERS), "smp"]
    others = [path for path in SOURCE.rglob("*.py") if path.parent != SOURCE / "models" / "adapters"]
    naming = {
        str(path.relative_to(SOURCE)): found
        for path in others
        if (found := [name for name in libraries if name in "\n".join(words(path)).replace("-", "_")])
    }
    assert others and naming == {}
