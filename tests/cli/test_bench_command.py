from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands import SMALL_BENCH, parsed, refused, run
from foveal.benchmark import runtimes as module
from foveal.benchmark.machine import describe_machine
from foveal.benchmark.results import BenchResult, BenchRow, DenseRow, Fastest
from foveal.benchmark.runtimes import pytorch
from foveal.cli.bench import configurations
from foveal.cli.options import spread
from foveal.data.image import save_image
from foveal.data.synthetic import street
from foveal.hub.checkpoint import load_model
from foveal.reporting.bench_chart import draw_bench
from foveal.reporting.bench_text import bench_text


def test_several_budgets_and_levels_give_a_row_each(command) -> None:
    result = parsed(command("--budget", 1, 0.6, "--max-level", 1, 2, "--json"))
    rows = [(row["budget"], row["max_level"]) for row in result["adaptive"]]
    assert rows == [(1.0, 0), (0.6, 1), (0.6, 2)]
    assert {(row["tile"], row["coarse_level"], row["policy"]) for row in result["adaptive"]} == {
        (32, 2, "entropy")
    }
    assert (result["size"], result["model"]) == ([64, 96], "small")
    assert result["best_static"]["runtime"] == "torch"


def test_coarse_to_fine_is_timed_at_every_first_look(command) -> None:
    arguments = ("--method", "coarse_to_fine", "--budget", 0.4, "--coarse-level", 1, 2, "--json")
    rows = parsed(command(*arguments))["adaptive"]
    assert [(row["budget"], row["max_level"], row["policy"]) for row in rows] == [
        (0.4, 1, "weighted_entropy"),
        (0.4, 2, "weighted_entropy"),
    ]
    assert all(0.3 < row["work"] <= 0.4 for row in rows)


def test_words_after_an_option_belong_to_it() -> None:
    options = {"--budget", "--max-level"}
    for given, expected in {
        "--budget 1 0.5 --tile 32": "--budget 1 --budget 0.5 --tile 32",
        "--budget=1 0.5 --max-level 1 2": "--budget=1 --budget 0.5 --max-level 1 --max-level 2",
        "--budget 1 --budget 2 -h": "--budget 1 --budget 2 -h",
        "--budget -1": "--budget -1",
        "--tile 32 64": "--tile 32 64",
        "1 --budget": "1 --budget",
    }.items():
        assert spread(given.split(), options) == expected.split()


def test_budget_1_comes_once(bench_model: Path) -> None:
    loaded = load_model(bench_model)
    found = configurations(loaded, "segblocks", [1.0, 0.5], {"tile": [64]})
    rows = [(row.budget, row.settings["max_level"], row.settings["tile"]) for row in found]
    assert rows == [(1.0, 2, 64), (0.5, 1, 64), (0.5, 2, 64)]
    found = configurations(loaded, "coarse_to_fine", [0.5], {})
    assert [row.settings["coarse_level"] for row in found] == [1, 2]


def test_the_table_and_the_picture_are_for_people(command, tmp_path: Path) -> None:
    path = tmp_path / "speed.png"
    result = command("--budget", 0.6, "--max-level", 1, "--picture", path)
    assert result.exit_code == 0, result.output
    for word in ("small", "96 x 64 px", "torch", "foveal", "fastest", "speed-up", "eta", "segblocks"):
        assert word in result.stdout
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 600
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 50


def test_an_image_keeps_its_size(command, tmp_path: Path) -> None:
    save_image(street(3, (70, 130))[0], tmp_path / "photo.png")
    small = ("--image", tmp_path / "photo.png", *SMALL_BENCH[2:], "--batch", 2)
    result = parsed(command("--budget", 0.7, "--max-level", 1, "--json", small=small))
    assert (result["size"], result["batch"]) == ([70, 130], 2)


def test_rows_and_runtimes_that_are_left_out_are_named(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(pytorch, "find_compiler", lambda: None)
    small = ("--size", "64x96", "--repeat", 1, "--no-keep-memory", "--json")
    result = command("--budget", 0.6, 0.1, "--max-level", 1, small=small)
    assert [row["budget"] for row in parsed(result)["adaptive"]] == [0.6]
    lines = result.stderr.splitlines()
    assert [line.split("'")[1] for line in lines[:3]] == ["compile", "onnxruntime", "openvino"]
    assert lines[3].startswith("foveal: budget 0.1, policy entropy, tile 32, max_level 1")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--runtimes", "torch,tensorflow"), "no runtime named 'tensorflow'; available: torch, compile"),
        (("--runtimes", ","), "no runtime is named"),
        (("--precision", "f16"), "no precision named 'f16'; give some of f32, bf16, int8"),
        (("--images", "photos"), "gives int8 its ranges; add --precision int8"),
        (("--precision", "int8"), "the runtime 'torch' is not available: int8"),
        (("--ops", "--precision", "bf16"), "leave --runtimes, --precision out"),
        (("--size", "64"), "size is '64'"),
        (("--size", "64x0"), "at least 1 px"),
        (("--budget", 0.5, 2), "budget is 2; it must be above 0 and at most 1"),
        (("--budget", "much"), "--budget"),
        (("--budget", 0.1, "--max-level", 1), "raise the budget"),
        (("--model", "nothing"), "no model 'nothing'"),
        (("--model", "swiftnet_rn81"), "swiftnet_rn18"),
        (("--method", "segblock"), "no method named"),
        (("--policy", "entropi"), "did you mean 'entropy'"),
        (("--policy", "oracle"), "needs labels"),
        (("--tile", 20), "multiple of 32"),
        (("--image", "none.png"), "exclude one another"),
        (("--picture", "chart.jpg"), "ends in .png"),
        (("--picture", "no/such/folder/chart.png"), "folder does not exist"),
        (("--repeat", 0), "--repeat"),
        (("stray",), "stray"),
    ],
)
def test_bad_input_is_one_sentence(command, words: tuple[object, ...], message: str) -> None:
    assert message in refused(command(*words))


def test_a_damaged_model_is_not_mistaken_for_a_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"no weights")
    sentence = refused(run("bench", "--model", path, *SMALL_BENCH))
    assert "its card bad.json is missing" in sentence
    assert "architecture" not in sentence


def fake(
    *rows: tuple[float, int, float, float],
    memory: float | None = None,
    precisions: tuple[str, ...] = ("f32",),
    agreement: float | None = None,
    **changes: Any,
) -> BenchResult:
    """Make a result of rows of budget, max_level, work and speed-up."""
    adaptive = [
        BenchRow(
            method="segblocks",
            policy="entropy",
            budget=budget,
            precision=precision,
            engine="program",
            max_level=level,
            tile=64,
            coarse_level=2,
            work=work,
            macs=10**10,
            agreement=agreement,
            ms=100 / speedup,
            p95=110 / speedup,
            speedup=speedup,
            eta=speedup * work,
            own_speedup=speedup / 2,
            decide_ms=None,
            peak_mb=memory,
            dense_peak_mb=memory and memory + 200,
        )
        for precision in precisions
        for budget, level, work, speedup in rows
    ]
    best = Fastest("openvino", "f32", 100.0)
    result = BenchResult(
        **vars(describe_machine()),
        model="swiftnet_rn18",
        weights="random",
        size=(1024, 2048),
        batch=1,
        repeat=20,
        dense_macs=10**11,
        dense=(DenseRow("openvino", "f32", "latency, f32", 100.0, 120.0, 3e-7, agreement),),
        best_static=best,
        best_static_any=Fastest("openvino", "int8", 30.0),
        adaptive=tuple(adaptive),
    )
    return replace(result, **changes)


@pytest.mark.parametrize(
    "rows",
    [
        [(1.0, 0, 1.0, 0.9)],
        [(0.4, 2, 0.4, 2.4)],
        [(1.0, 0, 1.2, 0.01), (0.02, 5, 0.02, 40.0)],
        [(0.5, level, 0.5, 1.5) for level in range(1, 7)],
    ],
)
def test_charts_of_any_rows_can_be_drawn(rows: list[tuple[float, int, float, float]]) -> None:
    figure = draw_bench(fake(*rows))
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.axes[0].texts]
    for *_, work, speedup in rows:
        assert f"{speedup:.2f}x, eta {speedup * work:.2f}" in texts


def test_a_batch_and_memory_are_shown() -> None:
    text = bench_text(fake((0.4, 1, 0.4, 2.0), memory=700.4, batch=4, threads=1))
    for words in (
        "4 x 2048 x 1024 px",
        "1 thread;",
        "random weights",
        "peak MB",
        "700",
        "900",
        "in any precision: openvino in int8",
    ):
        assert words in text
    assert "%" not in text, "labels of random weights mean nothing"
    trained = bench_text(fake((0.4, 1, 0.4, 2.0), agreement=0.97, weights="trained"))
    assert trained.count("97.00%") == 2 and "random" not in trained
    assert "peak MB" not in bench_text(fake((0.4, 1, 0.4, 2.0)))


def test_every_precision_has_its_rival_in_text_and_picture() -> None:
    best = {"f32": Fastest("openvino", "f32", 100.0), "bf16": Fastest("torch", "bf16", 50.0)}
    result = fake((0.4, 1, 0.4, 2.0), (1.0, 0, 1.0, 0.9), precisions=("f32", "bf16"), best_static=best)
    text = bench_text(result)
    assert "speed-up over openvino in f32, 100.0 ms and torch in bf16, 50.0 ms; own" in text
    assert "in any precision: openvino in int8" in text
    legend = draw_bench(result).axes[0].get_legend()
    assert legend is not None
    labels = [entry.get_text() for entry in legend.get_texts()]
    assert {"coarsest level 1, f32", "coarsest level 1, bf16"} < set(labels)
    assert "openvino in f32: 100 ms, torch in bf16: 50 ms" in labels


@pytest.mark.slow
def test_all_peers_run_beside_the_adaptive_network() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    arguments = ("--model", "swiftnet_nano", "--size", "128x192", "--repeat", 2, "--no-keep-memory", "--json")
    result = parsed(run("bench", *arguments, "--budget", 0.6, "--max-level", 2, "--tile", 32))
    names = [row["runtime"] for row in result["dense"]]
    assert names == ["torch", "compile", "onnxruntime", "openvino", "foveal"]
    assert all(row["error"] < 1e-4 for row in result["dense"])
    fastest = min(result["dense"][:-1], key=lambda row: row["ms"])
    expected = {"runtime": fastest["runtime"], "precision": "f32", "ms": fastest["ms"]}
    assert result["best_static"] == expected


def masked(folder: Path, size: tuple[int, int] = (64, 96)) -> Path:
    """Write a mask that wants the left half."""
    values = np.zeros(size, np.uint8)
    values[:, : size[1] // 2] = 255
    Image.fromarray(values).save(folder / "mask.png")
    return folder / "mask.png"


def test_a_mask_gives_every_row_a_second_one_that_says_what_it_saves(tmp_path: Path) -> None:
    small = ("--size", "128x192", *SMALL_BENCH[2:], "--tile", 32, "--max-level", 1)
    words = ("bench", "--model", "swiftnet_nano", *small)
    mask = ("--mask", masked(tmp_path, (128, 192)), "--budget", 1.0, 0.6)
    rows = parsed(run(*words, *mask, "--json"))["adaptive"]
    assert [(row["budget"], row["wanted"]) for row in rows] == [
        (1.0, None),
        (1.0, 0.5),
        (0.6, None),
        (0.6, 0.5),
    ]
    assert rows[1]["work"] < 0.7 * rows[0]["work"] and rows[1]["macs"] < 0.75 * rows[0]["macs"]
    assert rows[3]["macs"] < 0.8 * rows[0]["macs"]
    assert rows[3]["agreement"] is None, "labels of random weights mean nothing"
    text = run(*words, *mask).stdout
    assert "the mask wants 50.0% of the pixels: at budget 0.6 in f32 it saves" in text


def test_masks_by_image_and_by_nodata(tmp_path: Path) -> None:
    picture = np.full((64, 96, 3), 90, np.uint8)
    picture[:, 32:] = 0
    Image.fromarray(picture).save(tmp_path / "photo.png")
    (tmp_path / "masks").mkdir()
    masked(tmp_path / "masks").rename(tmp_path / "masks" / "photo.png")
    words = ("--model", "swiftnet_nano", *SMALL_BENCH[2:], "--tile", 32, "--max-level", 1, "--budget", 0.6)
    for mask, share in (("nodata", round(1 / 3, 4)), (tmp_path / "masks", 0.5)):
        result = run("bench", *words, "--image", tmp_path / "photo.png", "--mask", mask, "--json")
        assert parsed(result)["adaptive"][1]["wanted"] == share


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--mask", "nodata"), "--mask nodata goes by the image file, and a street is generated"),
        (("--mask", "nowhere.png"), "--mask nowhere.png does not exist; give an image, a folder"),
        (("--mask", "nodata", "--memory"), "--memory measures whole images; leave it or --mask out"),
        (("--mask", "nodata", "--ops"), "leave --runtimes, --mask out"),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit_are_refused(words: tuple[str, ...], says: str) -> None:
    assert says in refused(run("bench", "--model", "swiftnet_nano", *SMALL_BENCH, *words))


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    mask = masked(tmp_path, (32, 96))
    said = refused(run("bench", "--model", "swiftnet_nano", *SMALL_BENCH, "--mask", mask))
    assert "mask.png has 32x96 px and the image 64x96; give equal sizes" in said
