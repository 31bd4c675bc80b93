from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import foveal
from foreign import Strided, UNet, lively, make_unet, picture
from foveal.adaptive import AdaptiveModel
from foveal.adaptive.opening import call_function, describe, renew_page
from foveal.adaptive.source import Source, find_source
from foveal.hub.card import CheckpointError

PRE = foveal.Preprocess((0.4, 0.5, 0.6), (0.3, 0.2, 0.1), 1.0, "bgr", 32, "edge")
SOURCE = {"source": "foreign:make_unet", "arguments": {"classes": 4}}


@pytest.fixture(scope="module")
def model() -> AdaptiveModel:
    return foveal.adapt(lively(UNet()), preprocess=PRE, classes=["soil", "crop", "weed", "stone"], **SOURCE)


@pytest.fixture(scope="module")
def saved(model: AdaptiveModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "weeds"
    model.save_pretrained(folder)
    return folder


def test_what_is_loaded_answers_the_same_to_the_bit(model: AdaptiveModel, saved: Path) -> None:
    again = foveal.AdaptiveModel.from_pretrained(saved, trust_source=True)
    assert again.spec == model.spec
    image = picture()
    for budget in (0.4, 1.0):
        assert torch.equal(again(image, budget=budget).logits, model(image, budget=budget).logits)


def test_the_network_may_be_given(model: AdaptiveModel, saved: Path) -> None:
    again = foveal.AdaptiveModel.from_pretrained(str(saved), network=make_unet())
    assert torch.equal(again(picture(), budget=0.4).logits, model(picture(), budget=0.4).logits)


def test_nothing_is_pickled_and_nothing_is_rounded(model: AdaptiveModel, saved: Path) -> None:
    from safetensors.torch import load_file

    assert {path.name for path in saved.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    stored = load_file(saved / "model.safetensors")
    state = model.network.state_dict()
    assert set(stored) == set(state)
    assert all(torch.equal(stored[name], value) for name, value in state.items())


def test_the_card_says_what_it_is(saved: Path) -> None:
    text = (saved / "README.md").read_text()
    for part in ("library_name: foveal", "pipeline_tag: image-segmentation", "# UNet", "soil, crop, weed"):
        assert part in text
    assert "trust_source=True" in text


def test_code_that_a_file_names_is_not_run_unasked(saved: Path) -> None:
    with pytest.raises(
        ValueError, match=r"made by foreign:make_unet, .* give trust_source=True .* network=net"
    ):
        foveal.AdaptiveModel.from_pretrained(saved)


def test_what_cannot_be_made_again_is_said(tmp_path: Path) -> None:
    foveal.adapt(lively(Strided())).save_pretrained(tmp_path / "a")
    with pytest.raises(
        ValueError, match=r"weights of Strided but not how to make the network; give from_pre"
    ):
        foveal.AdaptiveModel.from_pretrained(tmp_path / "a")
    again = foveal.AdaptiveModel.from_pretrained(tmp_path / "a", network=Strided())
    assert again(picture(), budget=0.4).labels.shape == (1, 203, 270)


def test_another_network_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="of another network than Strided"):
        foveal.AdaptiveModel.from_pretrained(saved, network=Strided())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "model.safetensors").unlink(), r"model.safetensors is missing; give a folder of"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "damaged, or no weights"),
        (
            lambda f: (f / "config.json").write_text('{"format": 99}'),
            "format 99, and this version .* reads format 1",
        ),
        (
            lambda f: (f / "config.json").write_text('{"format": 1}'),
            "no adaptive model .name: field required.",
        ),
        (
            lambda f: (f / "config.json").write_text(
                (f / "config.json").read_text().replace('"align_corners"', '"align_corner"')
            ),
            "no adaptive model .shape.align_corner is .*: unexpected",
        ),
    ],
)
def test_damaged_files_are_said(saved: Path, tmp_path: Path, change: object, says: str) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    change(folder)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=says):
        foveal.AdaptiveModel.from_pretrained(folder, network=make_unet())


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such folder; give one of AdaptiveModel.save_pretrained"):
        foveal.AdaptiveModel.from_pretrained(tmp_path / "nowhere")


def test_precisions_of_weights_are_kept(tmp_path: Path) -> None:
    model = foveal.adapt(lively(Strided())).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "a")
    again = foveal.AdaptiveModel.from_pretrained(tmp_path / "a", network=Strided())
    assert next(again.network.parameters()).dtype == torch.bfloat16
    assert torch.equal(again(picture(), budget=0.4).logits, model(picture(), budget=0.4).logits)


def test_networks_of_foveal_are_made_without_asking(tmp_path: Path) -> None:
    arguments = {"name": "swiftnet_nano", "classes": 5}
    net = lively(foveal.create_model(**arguments))
    model = foveal.adapt(net, source="foveal:create_model", arguments=arguments)
    model.save_pretrained(tmp_path / "nano")
    again = foveal.AdaptiveModel.from_pretrained(tmp_path / "nano")
    image = picture(size=(256, 256))
    assert torch.equal(again(image, budget=0.4).logits, model(image, budget=0.4).logits)


def test_a_library_says_how_its_networks_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("segmentation_models_pytorch")

    class Unet(Strided):
        def __init__(self, classes: int = 4, encoder_weights: str | None = "imagenet") -> None:
            super().__init__(classes=classes)
            self._hub_mixin_config = {"classes": classes, "encoder_weights": encoder_weights}  # type: ignore[assignment]

    Unet.__module__ = "segmentation_models_pytorch.decoders.unet.model"
    module.Unet = Unet  # type: ignore[attr-defined]
    module.run = print  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", module)
    source = find_source(Unet(classes=7))
    assert source == Source("segmentation_models_pytorch:Unet", {"classes": 7, "encoder_weights": None})
    assert source.make().head.out_channels == 7  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="segmentation_models_pytorch:run is no class of networks"):
        Source("segmentation_models_pytorch:run").make()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (Source("nowhere_at_all:make"), "nowhere_at_all:make, which cannot be imported"),
        (Source("foreign:no_such"), "foreign:no_such, which cannot be imported"),
        (Source("foreign:picture"), "foreign:picture makes a Tensor; give one that makes a module"),
    ],
)
def test_sources_that_make_nothing_are_said(source: Source, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        source.make(trusted=True)


def test_a_library_that_does_not_import_is_said_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of networks that import torchvision where it was built for another torch."""
    monkeypatch.chdir(tmp_path)
    for name, error in (("misbuilt", "operator torchvision::nms does not exist"), ("broken", "no luck")):
        Path(f"{name}.py").write_text(f"raise RuntimeError({error!r})")
    helps = r"nms does not exist\); install the torchvision .*import_library\('torchvision'\) before"
    with pytest.raises(
        ValueError, match=f"misbuilt:make, which cannot be imported .*{helps}, or give network=net"
    ):
        Source("misbuilt:make").make(trusted=True)
    with pytest.raises(ValueError, match=f"misbuilt:make gives no network .*{helps}$"):
        call_function("misbuilt:make")
    with pytest.raises(
        ValueError, match=r"broken:make, which cannot be imported \(no luck\); install it, or"
    ):
        Source("broken:make").make(trusted=True)
    with pytest.raises(ValueError, match=r"broken:make gives no network \(RuntimeError: no luck\)$"):
        call_function("broken:make")


def test_a_library_that_can_be_made_to_import_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder and a command name a network: nobody could call `import_library` before."""
    monkeypatch.chdir(tmp_path)
    ready: list[bool] = []
    monkeypatch.setattr("foveal.models.adapters.torchvision.import_torchvision", lambda: ready.append(True))
    monkeypatch.setitem(sys.modules, "state_of_it", SimpleNamespace(ready=ready))  # type: ignore[arg-type]
    for name in ("first", "second"):
        lines = (
            "import foreign, state_of_it",
            "if not state_of_it.ready:",
            "    raise RuntimeError('operator torchvision::nms does not exist')",
            "make = foreign.UNet",
        )
        Path(f"{name}.py").write_text("\n".join(lines))
    assert isinstance(call_function("first:make"), UNet)
    ready.clear()
    assert isinstance(Source("second:make").make(trusted=True), UNet)
    ready.clear()
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("third.py").write_text(Path("first.py").read_text())
    assert isinstance(foveal.import_library("third").make(), UNet)
    with pytest.raises(ImportError, match="nowhere_at_all"):
        foveal.import_library("nowhere_at_all")


def test_the_file_is_json(saved: Path) -> None:
    record = json.loads((saved / "config.json").read_text())
    assert record["source"] == {"function": "foreign:make_unet", "arguments": {"classes": 4}}
    assert record["preprocess"]["channel_order"] == "bgr"


def test_models_go_to_a_hub_and_come_back(
    model: AdaptiveModel, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hub:
        def __init__(self, token: str | None = None) -> None:
            self.token = token

        def create_repo(self, repo_id: str, **options: object) -> SimpleNamespace:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, folder_path: Path, **options: object) -> str:
            shutil.copytree(folder_path, tmp_path / "hub")
            return f"https://hub/{options['repo_id']}"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    assert model.push_to_hub("me/weeds") == "https://hub/me/weeds"
    assert {p.name for p in (tmp_path / "hub").iterdir()} == {p.name for p in saved.iterdir()}
    config = str(tmp_path / "hub" / "config.json")
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **options: config)
    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tmp_path / "hub")

    monkeypatch.setattr("foveal.adaptive.files.snapshot_download", download)
    again = foveal.AdaptiveModel.from_pretrained("me/weeds", network=make_unet(), revision="v1")
    assert asked["name"] == "me/weeds"
    assert asked["revision"] == "v1"
    assert torch.equal(again(picture(), budget=0.4).logits, model(picture(), budget=0.4).logits)


def test_the_card_follows_the_model_until_people_change_it(tmp_path: Path) -> None:
    model = foveal.adapt(lively(Strided()))
    model.save_pretrained(tmp_path)
    card, before = tmp_path / "README.md", (tmp_path / "README.md").read_text()
    assert "Agreement with the dense network" not in before
    profile = model.calibrate([picture()[0], picture(seed=2)[0]])
    shutil.copytree(tmp_path, tmp_path / "commanded")
    renew_page(describe(model, tmp_path / "commanded" / "model.safetensors"), profile)  # as foveal adapt does
    model.save_pretrained(tmp_path)
    after = card.read_text()
    assert (tmp_path / "commanded" / "README.md").read_text() == after
    assert "Agreement with the dense network on" in after and "| coarse_to_fine |" in after
    card.write_text(after.replace("Foveal", "Our own words. Foveal"))
    edited = card.read_text()
    model.spec = replace(model.spec, classes=("soil", "crop", "weed", "stone")[: len(model.spec.classes)])
    model.save_pretrained(tmp_path)
    assert card.read_text() == edited
