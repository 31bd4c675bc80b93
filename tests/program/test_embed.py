"""The C library: the same labels as Python, from the file alone."""

from __future__ import annotations

import ctypes
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.embed.compare import differences
from foreign import UNet
from foveal.calibration.export import export_program
from foveal.kernels import build
from foveal.program import Program, ProgramInfo, RunDefaults, compile_network, load_program
from foveal.program.settings import shrunk_size
from foveal.program.spec import native

ROOT = Path(__file__).parents[2]
INFO = ProgramInfo(
    "tiny",
    ("sky", "tree, é", 'a "road"', "5 €", "\N{GRINNING FACE}"),
    tuple((k, 2 * k, 255 - k) for k in range(5)),
    RunDefaults(tile=64, coarse_level=2, max_level=1, level_gain=(0.7, 1.0, 0.25), logit_blend=0.3),
)
BUILD_WITHOUT_TORCH = "from foveal.kernels import build; print(build.build())"


class Image(ctypes.Structure):
    """FovealImage."""

    _fields_ = [
        ("pixels", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("format", "height", "width")),
        *((name, ctypes.c_int64) for name in ("channel_step", "row_step", "column_step")),
    ]


class Options(ctypes.Structure):
    """FovealOptions."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("method", "tile", "threads")),
        ("budget", ctypes.c_double),
        ("mask", ctypes.c_void_p),
        ("scale", ctypes.c_double),
    ]


class Result(ctypes.Structure):
    """FovealResult."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("labels", "confidence", "levels")),
        ("work", ctypes.c_double),
        ("macs", ctypes.c_int64),
        ("passes", ctypes.c_int32),
        ("error", ctypes.c_char * 256),
    ]


@pytest.fixture
def library() -> ctypes.CDLL:
    found = native()
    found.foveal_load.restype = ctypes.c_void_p
    found.foveal_load.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    found.foveal_run.argtypes = [ctypes.c_void_p] * 4
    found.foveal_free.argtypes = found.foveal_classes.argtypes = found.foveal_tile.argtypes = [
        ctypes.c_void_p
    ]
    found.foveal_shrunk.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_double]
    found.foveal_shrunk.argtypes += [ctypes.c_void_p] * 2
    found.foveal_name.restype = found.foveal_class_name.restype = ctypes.c_char_p
    found.foveal_name.argtypes = [ctypes.c_void_p]
    found.foveal_class_name.argtypes = found.foveal_class_color.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    found.foveal_class_color.restype = ctypes.POINTER(ctypes.c_uint8)
    return found


@pytest.fixture(params=["f32", "int8"])
def file(request: pytest.FixtureRequest, network, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.foveal"
    images = [torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))]
    export_program(network("swiftnet_nano"), path, request.param, images, INFO)
    return path


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (150, 210, 3), dtype=np.uint8)


def run(
    library: ctypes.CDLL, program: int, image: Image, options: Options, cells: tuple[int, int]
) -> tuple[int, Result, dict[str, np.ndarray]]:
    arrays = {
        "labels": np.empty((image.height, image.width), np.uint8),
        "confidence": np.empty((image.height, image.width), np.float32),
        "levels": np.empty(cells, np.int8),
    }
    result = Result(*(array.ctypes.data for array in arrays.values()))
    status = library.foveal_run(
        program, ctypes.addressof(image), ctypes.addressof(options), ctypes.addressof(result)
    )
    return status, result, arrays


def test_the_example_labels_as_python_does(file: Path, tmp_path: Path) -> None:
    """Linked against a library without OpenMP, as C programs have it."""
    compiler = shutil.which("gcc") or pytest.skip("no gcc")
    words = [sys.executable, "-c", BUILD_WITHOUT_TORCH]
    built = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    words = [
        compiler,
        "-std=c11",
        "-D_POSIX_C_SOURCE=200809L",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{build.HEADERS}",
    ]
    words += [str(ROOT / "examples/embed/segment.c"), built, "-o", str(tmp_path / "segment")]
    subprocess.run(words, check=True)
    assert differences(tmp_path, load_program(file), file, picture()) == [0, 0]


@pytest.mark.slow
def test_the_makefile_does_what_it_says(tmp_path: Path) -> None:
    words = [
        "make",
        "-C",
        str(ROOT / "examples/embed"),
        f"BUILD={tmp_path}",
        f"PYTHON={sys.executable}",
        "test",
    ]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert "budget 0.3: 0 of 691200 pixels differ" in done.stdout


def test_a_file_says_who_it_is(file: Path, library: ctypes.CDLL) -> None:
    assert load_program(file).info == INFO
    program = library.foveal_load(str(file).encode(), None, 0)
    try:
        assert library.foveal_name(program).decode() == INFO.name
        assert (library.foveal_classes(program), library.foveal_tile(program)) == (5, 64)
        names = [library.foveal_class_name(program, k) for k in range(-1, 6)]
        assert names == [None, *(name.encode() for name in INFO.classes), None]
        colours = [library.foveal_class_color(program, k) for k in range(5)]
        assert tuple(tuple(colour[:3]) for colour in colours) == INFO.palette
        assert not library.foveal_class_color(program, 5)
    finally:
        library.foveal_free(program)


def test_c_answers_as_python_does(file: Path, library: ctypes.CDLL) -> None:
    """With what the file recommends, a budget alone is given; with another tile and a mask too."""
    program, loaded = library.foveal_load(str(file).encode(), None, 0), load_program(file)
    packed = picture()
    planar = np.ascontiguousarray(packed.transpose(2, 0, 1).astype(np.float32) / 255)
    mask = np.ones((5, 7), np.uint8)
    mask[1:3, 2:6] = 0
    images = {
        0: (packed, Image(packed.ctypes.data, 0, 150, 210)),
        1: (planar, Image(planar.ctypes.data, 1, 150, 210, 150 * 210, 210, 1)),
    }
    assert loaded.info is not None
    recommended = loaded.info.run
    small = RunDefaults(**{**recommended.__dict__, "tile": 32})
    try:
        for array, image in images.values():
            for options, settings, cells in (
                (Options(0, 0, 1), recommended.dense(), (3, 4)),
                (Options(1, 0, 1, 0.6), recommended.segblocks(0.6), (3, 4)),
                (Options(2, 0, 1, 0.6), recommended.coarse_to_fine(0.6), (3, 4)),
                (Options(2, 32, 1, 0.6, mask.ctypes.data), small.coarse_to_fine(0.6), (5, 7)),
            ):
                status, result, found = run(library, program, image, options, cells)
                given = mask[None] if options.mask else None
                expected = loaded.run(array[None], settings, given, threads=1, confidence=True)
                assert (status, result.error) == (0, b"")
                for name, values in found.items():
                    np.testing.assert_array_equal(values, getattr(expected, name)[0], err_msg=name)
                assert result.work == expected.work[0] > 0
                assert (result.macs, result.passes) == (expected.macs, expected.passes)
    finally:
        library.foveal_free(program)


def test_a_file_that_says_nothing_runs_too(library: ctypes.CDLL, program, tmp_path: Path) -> None:
    program("swiftnet_nano").save(tmp_path / "plain.foveal")
    assert load_program(tmp_path / "plain.foveal").info is None
    loaded = library.foveal_load(str(tmp_path / "plain.foveal").encode(), None, 0)
    image = picture()
    try:
        assert library.foveal_name(loaded) is None and library.foveal_class_name(loaded, 0) is None
        given = Image(image.ctypes.data, 0, 150, 210), Options(2, 0, 1, 0.7)
        status, _, found = run(library, loaded, *given, (5, 7))
        expected = program("swiftnet_nano").run(image[None], RunDefaults().coarse_to_fine(0.7), threads=1)
        assert status == 0
        np.testing.assert_array_equal(found["labels"], expected.labels[0])
    finally:
        library.foveal_free(loaded)


@pytest.mark.parametrize("recommended", [0.7, 1.0])
def test_c_shrinks_images_as_python_does(
    recommended: float, file: Path, library: ctypes.CDLL, tmp_path: Path
) -> None:
    defaults = RunDefaults(**{**INFO.run.__dict__, "scale": recommended, "tile": 32, "coarse_level": 1})
    info = ProgramInfo(INFO.name, INFO.classes, INFO.palette, defaults)
    loaded = Program(load_program(file).tables, info)
    loaded.save(tmp_path / "scaled.foveal")
    assert load_program(tmp_path / "scaled.foveal").info == info
    program, image = library.foveal_load(str(tmp_path / "scaled.foveal").encode(), None, 0), picture()
    given = Image(image.ctypes.data, 0, 150, 210)
    try:
        for asked in (0.0, 1.0, 0.5):
            scale = asked or recommended
            small, share = shrunk_size((150, 210), scale), math.prod(shrunk_size((150, 210), scale)) / 31500
            cells = -(-small[0] // 32), -(-small[1] // 32)
            for budget in (0.4, 0.2):
                status, result, found = run(
                    library, program, given, Options(2, 0, 1, budget, None, asked), cells
                )
                settings = defaults.coarse_to_fine(min(1.0, budget / share))
                shrunk_to = None if scale == 1 else small
                if share > 0.9 and budget < 0.3:  # the first pass takes more
                    assert (status, b"first pass" in result.error) == (-2, True)
                    continue
                expected = loaded.run(image[None], settings, threads=1, confidence=True, shrunk_to=shrunk_to)
                assert (status, result.error) == (0, b"")
                assert result.work == pytest.approx(share * expected.work[0])
                assert result.work > 0 and (budget > share or result.work <= budget + 32**2 / 31500)
                for name, values in found.items():
                    np.testing.assert_array_equal(values, getattr(expected, name)[0], err_msg=name)
                if not asked:
                    ours = loaded.segment(image[None], budget, threads=1)
                    np.testing.assert_array_equal(ours.labels[0], found["labels"])
                    assert ours.work[0] == pytest.approx(result.work)
        for scale in (-0.5, 1.5, float("nan"), 0.001):
            sides = ctypes.c_int32(), ctypes.c_int32()
            places = (ctypes.addressof(side) for side in sides)
            library.foveal_shrunk(program, 150, 210, ctypes.c_double(scale), *map(ctypes.c_void_p, places))
            assert [side.value for side in sides] == [150, 210]
            status, result, _ = run(library, program, given, Options(2, 0, 1, 0.4, None, scale), (5, 7))
            assert (status, b"scale must be 0, or a share" in result.error) == (-2, True)
    finally:
        library.foveal_free(program)


@pytest.mark.parametrize(
    ("absent", "known"),
    [
        ((), True),
        (("scale",), True),
        (("scale", "isolated_gain", "direct"), True),
        (("isolated_gain", "direct"), False),
        (("direct",), False),
    ],
)
def test_files_lack_only_what_came_later(
    absent: tuple[str, ...], known: bool, library: ctypes.CDLL, program, tmp_path: Path
) -> None:
    class Older(ProgramInfo):
        def to_json(self) -> str:
            state = json.loads(super().to_json())
            state["run"] = {name: value for name, value in state["run"].items() if name not in absent}
            return json.dumps(state)

    path, error = tmp_path / "older.foveal", ctypes.create_string_buffer(256)
    Program(program("swiftnet_nano").tables, Older(INFO.name, INFO.classes, INFO.palette, INFO.run)).save(
        path
    )
    loaded = library.foveal_load(str(path).encode(), error, 256)
    if not known:
        assert not loaded and error.value.startswith(b"its info has no proper")
        with pytest.raises(ValueError, match="RunDefaults must have"):
            load_program(path)
        return
    assert loaded and error.value == b"", error.value
    library.foveal_free(loaded)
    info = load_program(path).info
    assert info is not None and info.run == INFO.run


def test_a_file_of_version_1_runs_too(library: ctypes.CDLL) -> None:
    path = Path(__file__).with_name("version1.foveal")
    loaded, image = library.foveal_load(str(path).encode(), None, 0), picture()
    try:
        given = Image(image.ctypes.data, 0, 150, 210), Options(2, 32, 1, 0.6)
        status, _, found = run(library, loaded, *given, (5, 7))
        expected = load_program(path).run(image[None], RunDefaults(tile=32).coarse_to_fine(0.6), threads=1)
        assert status == 0
        np.testing.assert_array_equal(found["labels"], expected.labels[0])
    finally:
        library.foveal_free(loaded)


def test_an_image_has_the_channels_of_the_network(library: ctypes.CDLL, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UNet(4).eval()
    net.in_channels = 4
    compile_network(net, multiple=4).save(tmp_path / "bands.foveal")
    image = np.random.default_rng(0).integers(0, 256, (144, 208, 4), dtype=np.uint8)
    expected = load_program(tmp_path / "bands.foveal").run(
        image[None], RunDefaults().coarse_to_fine(0.7), threads=1
    )
    loaded = library.foveal_load(str(tmp_path / "bands.foveal").encode(), None, 0)
    try:
        assert library.foveal_channels(ctypes.c_void_p(loaded)) == 4
        given = Image(image.ctypes.data, 0, 144, 208), Options(2, 0, 1, 0.7)
        status, _, found = run(library, loaded, *given, (5, 7))
        assert status == 0
        np.testing.assert_array_equal(found["labels"], expected.labels[0])
        ragged = Image(image.ctypes.data, 0, 143, 208), given[1]
        status, said, _ = run(library, loaded, *ragged, (5, 7))
        assert status == -2
        assert b"images are 143x208 px" in said.error and b"multiples of 4; pad them" in said.error
    finally:
        library.foveal_free(loaded)


@pytest.mark.parametrize(
    ("image", "options", "says"),
    [
        ((None, 0, 8, 8), (0,), "no image"),
        ((1, 2, 8, 8), (0,), "format must be"),
        ((1, 0, 0, 8), (0,), "images are empty"),
        ((1, 0, 8, 8), (3,), "method must be"),
        ((1, 0, 8, 8), (2, 0, 1, 0.0), "budget must be above 0"),
        ((1, 0, 8, 8), (1, 0, 1, float("nan")), "budget must be above 0"),
        ((1, 0, 8, 8), (0, 24), "multiple of the network's coarsest stride"),
        ((1, 0, 8, 8), (0, 1 << 20), "at most 4096"),
        ((1, 0, 8, 8), (2, 64, 1, 0.01), "raise the budget"),
    ],
)
def test_bad_input_is_refused(
    image, options, says: str, library: ctypes.CDLL, program, tmp_path: Path
) -> None:
    program("swiftnet_nano").save(tmp_path / "plain.foveal")
    loaded = library.foveal_load(str(tmp_path / "plain.foveal").encode(), None, 0)
    pixels = np.zeros((8, 8, 3), np.uint8)
    address = pixels.ctypes.data if image[0] else None
    try:
        status, result, _ = run(library, loaded, Image(address, *image[1:]), Options(*options), (8, 8))
    finally:
        library.foveal_free(loaded)
    assert status == -2
    assert says in result.error.decode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tile": 0}, "tile is 0"),
        ({"coarse_level": 8}, "coarse_level is 8"),
        ({"segblocks_score": "doubt"}, "segblocks_score is 'doubt'"),
        ({"level_gain": (float("inf"),)}, "level_gain"),
        ({"logit_blend": 2}, "logit_blend is 2"),
    ],
)
def test_settings_that_no_run_can_have_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RunDefaults(**changes)  # type: ignore[arg-type]


def test_info_of_another_network_is_refused(program) -> None:
    tables = program("swiftnet_nano").tables
    with pytest.raises(ValueError, match="info names 2 classes; the network has 5"):
        Program(tables, ProgramInfo("two", ("a", "b")))
    with pytest.raises(ValueError, match="info recommends tile 24"):
        Program(tables, ProgramInfo("five", tuple("abcde"), run=RunDefaults(tile=24)))
    with pytest.raises(ValueError, match="palette has 1 colours of three bytes for 2 classes"):
        ProgramInfo("two", ("a", "b"), ((1, 2, 3),))
    with pytest.raises(ValueError, match="without the character 0"):
        ProgramInfo("nul", ("a\0",))
    with pytest.raises(ValueError, match="lone surrogates"):
        ProgramInfo("half \ud800", ("a",))


def test_an_unknown_precision_is_refused(network, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="precision is 'f16'; give f32, bf16 or int8"):
        export_program(network("swiftnet_nano"), tmp_path / "no.foveal", "f16")
