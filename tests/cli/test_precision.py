"""`--precision`: commands run compiled programs in f32, bf16 and, once images were seen, int8."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import parsed, refused, run
from foveal.benchmark import bench
from foveal.benchmark.engines import find_engines
from foveal.benchmark.runtimes import RUNTIMES, Backend, Runtime
from foveal.benchmark.runtimes.case import Variant
from foveal.calibration.engine import find_engine
from foveal.calibration.profile import load_profile
from foveal.data.dataset import default_palette
from foveal.data.image import read_image
from foveal.data.synthetic import CLASSES
from foveal.hub.card import Card
from foveal.hub.checkpoint import load_model, save_model
from foveal.kernels import build
from foveal.runtime import load_program
from samples import error_of, lively, nano, write_folder

SIZE = (128, 192)

pytestmark = pytest.mark.skipif(not build.available(), reason="no compiler")


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("streets"), 3, SIZE)


@pytest.fixture(scope="module")
def plain(streets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has seen no images."""
    card = Card("swiftnet_nano", CLASSES, default_palette(len(CLASSES)))
    network = lively(nano(len(CLASSES)), read_image(streets / "images" / "0.png"))
    return save_model(network, card, tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def adapted(streets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, adapted with ranges for int8; random weights would lose their labels in 8 bits."""
    out = tmp_path_factory.mktemp("adapted")
    words = ("--images", streets / "images", "--coarse-level", 1, "--policy", "entropy", "--out", out)
    result = run("adapt", "camvid_rn18", *words, "--precision", "int8", "--json")
    assert result.exit_code == 0, result.output
    return out / "model.safetensors"


def test_scales_are_kept_with_the_profile(adapted: Path) -> None:
    scales = load_profile(load_model(adapted)).scales
    assert scales is not None and scales.agreement > 0.9
    assert len(scales.scale) == len(scales.zero) > len(scales.kept)


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("method", ["dense", "segblocks", "coarse_to_fine"])
def test_segment_answers_in_every_precision_as_in_f32(
    adapted: Path, streets: Path, tmp_path: Path, precision: str, method: str
) -> None:
    image = streets / "images" / "1.png"
    words = (image, "--model", adapted, "--method", method, "--budget", 0.6, "--always-adapt", "--json")
    found = [
        parsed(run("segment", *words, "--precision", kind, "--out", tmp_path / kind))
        for kind in ("f32", precision)
    ]
    assert found[0]["work"] == pytest.approx(found[1]["work"], abs=0.05)
    for name, share in found[0]["classes"].items():
        assert found[1]["classes"].get(name, 0) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_evaluate_measures_in_a_precision(adapted: Path, streets: Path, precision: str) -> None:
    words = (adapted, "--data", f"folder:{streets}", "--timed", 0, "--budget", 0.6, "--json")
    exact, reduced = (parsed(run("evaluate", *words, "--precision", kind)) for kind in ("f32", precision))
    assert [row["method"] for row in reduced] == ["dense", "segblocks"]
    for one, two in zip(exact, reduced, strict=True):
        assert two["pixel_accuracy"] == pytest.approx(one["pixel_accuracy"], abs=0.05)


def test_bench_takes_our_ranges_from_the_profile(adapted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Backend("eight", {"int8": Variant(lambda case: Runtime(case.network.forward))})
    monkeypatch.setitem(RUNTIMES, "eight", backend)
    seen = []
    monkeypatch.setattr(
        bench,
        "find_engines",
        lambda *given: seen.append(given[2](find_engine(given[0]))) or find_engines(*given),
    )
    words = ("--model", adapted, "--size", "128x192", "--tile", 32, "--max-level", 1, "--budget", 0.6)
    result = run("bench", *words, "--repeat", 1, "--runtimes", "eight", "--precision", "int8", "--json")
    (row,) = parsed(result)["adaptive"]
    assert (row["precision"], row["engine"]) == ("int8", "program")
    assert seen == [load_profile(load_model(adapted)).scales]
    assert result.stderr.startswith("foveal: int8 of the static runtimes takes its ranges from generated")


def test_int8_without_images_names_the_command(plain: Path, streets: Path) -> None:
    image = streets / "images" / "1.png"
    assert "run foveal adapt" in refused(run("segment", image, "--model", plain, "--precision", "int8"))


def test_unknown_precisions_are_refused(plain: Path, streets: Path) -> None:
    image = streets / "images" / "1.png"
    message = refused(run("segment", image, "--model", plain, "--precision", "fp4"))
    assert "precision is fp4; give one of f32, bf16, int8" in message
    message = refused(run("adapt", plain, "--images", streets / "images", "--precision", "bf16"))
    assert "give f32, or int8" in message


def test_a_network_without_a_program_runs_in_pytorch_and_says_why(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foveal.calibration import engine as module
    from foveal.program import NotCompiled

    def cannot(network: object, multiple: int) -> None:
        raise NotCompiled("operation 'flip' (x) has no step")

    monkeypatch.setattr(module, "compile_fused", cannot)
    engine = find_engine(load_model(plain))
    assert engine.program is None and engine.name == "modules"
    assert "runs layer by layer in PyTorch" in engine.warning and "'flip'" in engine.warning
    assert "has no program in bf16" in error_of(lambda: find_engine(load_model(plain), "bf16"))


def test_export_takes_ranges_from_images_or_from_what_was_adapted(
    adapted: Path, plain: Path, streets: Path, tmp_path: Path
) -> None:
    file, image = tmp_path / "streets.foveal", read_image(streets / "images" / "0.png")[None]
    run_of = load_profile(load_model(adapted)).config
    row = parsed(run("export", adapted, file, "--precision", "int8", "--json"))
    assert (row["precision"], row["bytes"]) == ("int8", file.stat().st_size)
    program = load_program(file)
    assert program.info and program.info.run.coarse_to_fine_score == run_of.policy
    assert program.info.run.level_gain == run_of.level_gain
    said = refused(run("export", plain, tmp_path / "no.foveal", "--precision", "int8"))
    assert "no ranges for int8" in said and "give --images FOLDER" in said
    assert not (tmp_path / "no.foveal").exists()
    parsed(run("export", plain, file, "--precision", "int8", "--images", streets / "images", "--json"))
    again = load_program(file)
    expected = find_engine(load_model(plain)).program
    assert expected is not None
    same = again.run(image.numpy()).labels == expected.run(image.numpy()).labels
    assert same.mean() > 0.9
    assert "leave it out" in refused(run("export", plain, file, "--images", streets / "images"))
