from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import foveal
from foreign import Attending, Segmented, Strided, UNet, lively, picture

IMAGE = picture(size=(256, 320))
NETWORKS = pytest.mark.parametrize("network", [UNet(), Attending()], ids=["compiled", "layers"])


@NETWORKS
def test_copies_answer_the_same(network: nn.Module) -> None:
    model = foveal.adapt(lively(network))
    out = model(IMAGE, budget=0.4)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(IMAGE, budget=0.4).logits, out.logits)
    assert next(twin.parameters()) is not next(model.parameters())


@NETWORKS
def test_pickled_models_answer_the_same(network: nn.Module) -> None:
    model = foveal.adapt(lively(network))
    out = model(IMAGE, budget=0.4)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(IMAGE, budget=0.4).logits, out.logits)


@NETWORKS
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision(network: nn.Module, kind: torch.dtype) -> None:
    model = foveal.adapt(lively(network))
    exact = model(IMAGE, budget=1.0).labels
    half = model.to(kind)
    out = half(IMAGE, budget=1.0)
    assert out.logits.dtype == kind
    assert float((out.labels == exact).float().mean()) > 0.9
    assert half(IMAGE, budget=0.4).labels.shape == (1, 256, 320)
    assert "programs are made from float32 weights" in half.engine.why_not


@NETWORKS
def test_autocast(network: nn.Module) -> None:
    model = foveal.adapt(lively(network))
    exact = model(IMAGE, budget=0.4).labels
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(IMAGE, budget=0.4)
    assert float((out.labels == exact).float().mean()) > 0.8


def test_workers_of_a_data_loader() -> None:
    model = foveal.adapt(lively(UNet()))
    alone = torch.stack([Segmented(model)[k] for k in range(4)])
    found = torch.cat(
        list(DataLoader(Segmented(model), batch_size=2, num_workers=2, multiprocessing_context="fork"))
    )
    assert torch.equal(found, alone)


@pytest.mark.parametrize("network", [Strided()])
def test_torch_compile_of_the_network_is_taken_off(network: nn.Module) -> None:
    compiled = torch.compile(lively(network))
    model = foveal.adapt(compiled)  # type: ignore[arg-type]
    assert model.engine.program is not None
    assert torch.equal(model(IMAGE, budget=0.4).labels, foveal.adapt(network)(IMAGE, budget=0.4).labels)


def test_torch_compile_of_the_model_changes_nothing() -> None:
    model = foveal.adapt(lively(Strided()))
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(copy.deepcopy(model), backend=backend)
    for _ in range(2):
        found = compiled(IMAGE, budget=0.4)
        assert torch.equal(found.labels, model(IMAGE, budget=0.4).labels)
    assert (
        not graphs
    )  # neither the engine, which the first call makes, nor a method becomes many small graphs


def test_importing_foveal_imports_nothing_heavy() -> None:
    code = "import foveal, sys; assert not {'torch', 'huggingface_hub', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@NETWORKS
def test_what_cannot_be_traced_is_said(network: nn.Module) -> None:
    model = foveal.adapt(lively(network))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what tracing says about Python numbers
        with pytest.raises(ValueError, match="decides image by image"):
            torch.jit.trace(lambda x: model(x, budget=0.4).labels, (IMAGE,))
        with pytest.raises(ValueError, match="decides image by image"):
            torch.export.export(model, (IMAGE,), {"budget": 0.4})


@NETWORKS
def test_four_threads_at_once(network: nn.Module) -> None:
    model = foveal.adapt(lively(network))
    images = [picture(size=(128, 160 + 32 * k), seed=k) for k in range(4)]
    alone = [model(image, budget=0.4).labels for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: model(image, budget=0.4).labels, images * 3))
    assert all(torch.equal(a, b) for a, b in zip(alone * 3, together, strict=True))


def test_images_in_0_to_255_are_refused() -> None:
    model = foveal.adapt(lively(UNet()))
    with pytest.raises(ValueError, match=r"images hold numbers up to \d+; give numbers in 0\.\.1"):
        model(IMAGE * 255, budget=0.4)
    with pytest.raises(ValueError, match="images hold numbers up to"):
        model(IMAGE * 20, budget=0.4)  # a dark one
    assert torch.equal(
        model((IMAGE * 255).round().byte(), budget=0.4).labels,
        model((IMAGE * 255).round() / 255, budget=0.4).labels,
    )
