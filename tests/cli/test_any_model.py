"""Every command that takes a model takes a file, a folder, or `module:function`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import foveal
from commands import SMALL_BENCH, parsed, refused, run
from foreign import UNet, lively, make_attending, make_grey, make_unet
from foveal.adaptive.opening import Reference, open_model, open_network
from foveal.calibration import engine
from own_data import write_own

OWN = "foreign:make_unet"
LOUD = "--no-keep-memory"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give images of 3 channels, with masks."""
    return write_own(tmp_path_factory.mktemp("own") / "data", 3, "png")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of `save_pretrained`."""
    folder = tmp_path_factory.mktemp("saved") / "weeds"
    foveal.adapt(lively(UNet(3, 2)), source=OWN, arguments={"channels": 3, "classes": 2}).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize("what", ["function", "folder", "file"])
def test_segment_takes_them_and_gives_the_answer_of_the_model(
    what: str, data: Path, saved: Path, tmp_path: Path
) -> None:
    names = {"function": OWN, "folder": saved, "file": saved / "model.safetensors"}
    model = ("--model", names[what]) if what == "function" else ("--model", names[what], "--trust-source")
    out = ("--out", tmp_path, "--json", LOUD, "--method", "coarse_to_fine", "--always-adapt")
    row = parsed(run("segment", data / "images" / "0.png", *model, *out))
    assert row["size"] == [90, 120] and 0 < row["work"] < 0.7
    labels = np.array(Image.open(row["files"]["mask"]))
    assert labels.shape == (90, 120)
    if what != "function":
        again = foveal.AdaptiveModel.from_pretrained(saved, network=UNet(3, 2))
        image = foveal.read_image(data / "images" / "0.png")
        assert (again(image, budget=0.4).labels[0].numpy() == labels).mean() > 0.999


def test_weights_come_from_a_file(data: Path, tmp_path: Path) -> None:
    network = lively(make_unet(), seed=3)
    torch.save({"epoch": 3, "state_dict": network.state_dict()}, tmp_path / "a.pt")
    save_file(network.state_dict(), tmp_path / "b.safetensors")
    found = []
    for name in ("a.pt", "b.safetensors"):
        model = ("--model", OWN, "--weights", tmp_path / name, "--budget", 1)
        row = parsed(run("segment", data / "images" / "0.png", *model, "--out", tmp_path, "--json", LOUD))
        found.append(np.array(Image.open(row["files"]["mask"])))
    with torch.no_grad():
        image = foveal.read_image(data / "images" / "0.png")
        padded = torch.nn.functional.pad(image[None], (0, 0, 0, 2))
        expected = network(padded)[:, :, :90].argmax(1)[0].numpy()
    for labels in found:
        assert (labels == expected).mean() > 0.999


def test_every_command_takes_a_function(data: Path, tmp_path: Path) -> None:
    model, images = "foreign:make_pair", data / "images"
    assert "UNet runs on tiles" in run("check", model).stdout
    assert "3 channels" in run("show", model).stdout
    assert parsed(run("calibrate", model, "--size", "64x64", "--json", LOUD))["model"] == "UNet"
    bench = run("bench", "--model", model, *SMALL_BENCH, "--budget", 0.6, "--json")
    assert parsed(bench)["adaptive"][0]["engine"] == "program"
    rows = parsed(run("evaluate", model, "--data", f"folder:{data}", "--timed", 0, "--baseline", "--json"))
    assert [row["method"] for row in rows] == ["dense", "segblocks", "segblocks", "static"]
    assert list(rows[0]["iou"]) == ["background", "foreground"]
    small = ("--runtimes", "torch", "--precision", "f32", "--repeat", 1, "--timed", 1, "--scales", 1)
    found = parsed(run("frontier", model, "--data", f"folder:{data}", *small, "--budget", 0.5, "--json"))
    assert len(found["rows"]) == 4
    row = parsed(run("adapt", model, "--images", images, "--out", tmp_path / "kept", "--steps", 1, "--json"))
    assert row["images"] == 4
    assert foveal.AdaptiveModel.from_pretrained(tmp_path / "kept", trust_source=True).profile is not None


def test_networks_of_other_channels_are_benched_on_patches() -> None:
    bench = run("bench", "--model", "foreign:make_bands", *SMALL_BENCH, "--budget", 0.6, "--json")
    assert parsed(bench)["adaptive"][0]["engine"] == "program"


def test_a_function_may_return_an_adaptive_model() -> None:
    shown = run("show", "foreign:make_adaptive").stdout
    assert "soil, plant" in shown


def test_what_a_function_has_compiled_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[object] = []
    compiled = engine.compile_fused
    monkeypatch.setattr(engine, "compile_fused", lambda *a, **k: times.append(a) or compiled(*a, **k))
    for name in ("foreign:make_adaptive", "foreign:make_pair"):
        times.clear()
        assert engine.find_engine(open_model(name)).program is not None
        assert len(times) == 1


def test_weights_that_are_loaded_later_are_compiled(tmp_path: Path) -> None:
    made = open_model("foreign:make_adaptive")
    other = lively(open_network("foreign:make_adaptive"), seed=5)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    loaded = open_model(Reference("foreign:make_adaptive", tmp_path / "other.safetensors"))
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    one, two = (engine.find_engine(m).program.run(image, logits=True).logits for m in (made, loaded))
    assert abs(one - two).max() > 0.01 * abs(one).max()


def test_the_current_folder_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "at_home.py").write_text("from foreign import make_grey\n")
    monkeypatch.chdir(tmp_path)
    assert "1 channels" in run("show", "at_home:make_grey").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("foreign:missing",), "foreign:missing gives no network (AttributeError"),
        (("no_such:f",), "no_such:f gives no network (ModuleNotFoundError"),
        (("foreign:describe_nothing",), "give a function that returns a torch module"),
        (("camvid_rn18", "--weights", "a.pt"), "is for module:function; camvid_rn18 has its own"),
        ((OWN, "--weights", "a.pt"), "a.pt: no weights of UNet"),
        (("nothing",), "the folder of a run or of AdaptiveModel.save_pretrained, or module:function"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused(words: tuple[str, ...], says: str) -> None:
    assert says in refused(run("show", *words))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--classes", "a,b,c"), "classes has 3 entries and the network 4 classes; give 4"),
        (("--range", "4"), "--range is '4'; give LOW:HIGH, two numbers, such as 0:10000"),
        (("--device", "cuda:7"), "--device cuda:7 cannot be used"),
        (("--device", "gpu"), "--device gpu cannot be used"),
        (("--mask", "missing.png"), "--mask missing.png does not exist; give an image, a folder with one"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(words: tuple[str, ...], says: str, data: Path) -> None:
    image = data / "images" / "0.png"
    if "cuda:7" in words and torch.cuda.device_count() > 7:
        pytest.skip("it is there")
    result = run("segment", image, "--model", OWN, *words, "--out", data.parent / "out", LOUD)
    assert result.exit_code == 2 and says in result.stderr, result.output


def test_other_weights_than_tensors_are_not_unpickled(tmp_path: Path) -> None:
    torch.save(make_grey(), tmp_path / "whole.pt")
    sentence = refused(run("show", OWN, "--weights", tmp_path / "whole.pt"))
    assert (
        "cannot be read as a state dict" in sentence and "torch.save(network.state_dict(), FILE)" in sentence
    )


def test_what_bench_cannot_measure_is_refused() -> None:
    assert "--memory is for bundled models" in refused(run("bench", "--model", OWN, "--memory", *SMALL_BENCH))
    assert "bench times this processor" in refused(run("bench", "--model", OWN, "--device", "cuda"))


def test_masks_leave_places_out(data: Path, tmp_path: Path) -> None:
    image, out = data / "images" / "0.png", ("--out", tmp_path / "out", "--json", LOUD)
    whole = parsed(run("segment", image, "--model", OWN, *out, "--budget", 1))
    for mask in (data / "masks" / "0.png", data / "masks", "nodata"):
        row = parsed(run("segment", image, "--model", OWN, "--mask", mask, *out, "--budget", 1))
        assert row["work"] < whole["work"] and row["macs"] < whole["macs"]
        labels = np.array(Image.open(row["files"]["mask"]))
        wanted = np.array(Image.open(data / "masks" / "0.png")) > 0
        if mask == "nodata":
            wanted = np.array(Image.open(image)).any(2)
        assert ((labels == 255) == ~wanted).all()
        assert sum(row["classes"].values()) == pytest.approx(1, abs=1e-3)
    given = ("segment", image, "--model", OWN, "--mask", data / "masks", *out, "--budget", 1)
    coarse = parsed(run(*given, "--method", "coarse_to_fine", "--mask-border", "coarse"))
    edge = parsed(run(*given, "--method", "coarse_to_fine"))
    assert edge["work"] < coarse["work"]
    result = run(*given, "--method", "segblocks", "--mask-border", "coarse")
    assert "has no setting mask_border" in result.stderr and "give --method coarse_to_fine" in result.stderr
    dense = run(*given, "--method", "dense", "--mask-share", 0.5)
    said = "method dense takes no mask; the network runs on tiles at full resolution instead"
    assert parsed(dense)["reason"].startswith(said) and parsed(dense)["work"] < 1
    assert parsed(dense)["work"] <= edge["work"]
    nothing = tmp_path / "nothing.png"
    Image.new("L", (120, 90)).save(nothing)
    row = parsed(run("segment", image, "--model", OWN, "--mask", nothing, *out))
    assert (row["work"], row["macs"], row["classes"]) == (0, 0, {})
    compared = ("--compare", "--repeat", 1)
    row = parsed(run("segment", image, "--model", OWN, "--mask", data / "masks", *out, *compared))
    assert 0 <= row["agreement"] <= 1 and row["dense_ms"] > 0
    Image.new("L", (12, 9), 1).save(tmp_path / "small.png")
    result = run("segment", image, "--model", OWN, "--mask", tmp_path / "small.png", *out)
    assert result.exit_code == 2
    assert "has 12 x 9 px" in result.stderr and "give equal sizes" in result.stderr
    result = run("segment", data / "images" / "3.png", "--model", OWN, "--mask", data / "masks", *out)
    assert "3.png has no mask in" in result.stderr


def code_of(text: str) -> str:
    """Return the code at the end of what `check` prints."""
    return text[text.index("import foveal") :]


@pytest.mark.parametrize("method", ["coarse_to_fine", "segblocks"])
def test_the_code_that_check_prints_runs_with_the_method(method: str) -> None:
    network = lively(make_attending())
    text = run("check", "foreign:make_attending", "--method", method).stdout
    assert f"foveal.adapt(network, method='{method}', dense_modules=('context',), tile=32)" in text
    names = {"network": network, "images": torch.rand(1, 3, 256, 256)}
    exec(code_of(text), names)
    assert names["labels"].shape == (1, 256, 256)
    assert names["model"].spec.method == method
    assert names["model"].spec.dense_modules == ("context",)


def test_check_counts_what_a_budget_really_takes() -> None:
    row = parsed(run("check", OWN, "--json"))
    gain = row["gain"]
    assert gain["method"] == "coarse_to_fine" and gain["size"] == [512, 512] and gain["budget"] == 0.4
    assert abs(gain["macs"] - 0.4) < 0.02 and "ms" not in gain
    assert "foveal.adapt(network, method='coarse_to_fine'" in row["code"]
    text = run("check", OWN).stdout
    assert f"coarse_to_fine at 512x512 px: {gain['macs']:.3f} of the dense MACs at budget 0.4" in text
    assert "no times are known on this machine; foveal calibrate measures them" in text


def test_check_predicts_a_time_once_it_is_known() -> None:
    run("calibrate", "foreign:make_lively", "--method", "coarse_to_fine", "--size", "512x512", LOUD)
    gain = parsed(run("check", "foreign:make_lively", "--json"))["gain"]
    assert gain["ms"] > 0 and gain["dense_ms"] > 0
    assert "of the dense network" in run("check", "foreign:make_lively").stdout


def test_check_refuses_what_does_not_exist() -> None:
    assert "--device cuda:7 cannot be used" in refused(run("check", OWN, "--device", "cuda:7"))
    assert "nothing" in refused(run("check", OWN, "--method", "nothing"))


def test_a_function_is_compiled_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    real = engine.compile_fused

    def counted(*args: object, **kwargs: object) -> object:
        compiled.append(args)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "compile_fused", counted)
    run("segment", data / "images" / "0.png", "--model", OWN, "--out", tmp_path, LOUD)
    assert len(compiled) == 1
    run("adapt", OWN, "--images", data / "images", "--out", tmp_path / "kept")
    assert len(compiled) == 2
