"""Whatever is given to a public name: a right answer, or a sentence of ours, never an error from inside."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import foveal
from foveal.kernels import build
from foveal.program import DenseRun, PlannedRun, Program, Stream, load_program
from foveal.program.images import take_image
from foveal.program.quantise import find_scales
from foveal.program.spec import Request
from foveal.storage import said
from samples import nano

IMAGE = torch.rand(1, 3, 64, 96)
GIVEN: dict[str, Any] = {
    "None": None,
    "number": 3,
    "text": "x",
    "list": [],
    "dict": {},
    "array": np.zeros((2, 2)),
    "three axes": np.zeros((3, 64, 96), np.float32),
    "meta": IMAGE.to("meta"),
    "sparse": IMAGE.to_sparse(),
    "double": IMAGE.double(),
    "bool": IMAGE > 0.5,
    "batch 0": IMAGE[:0],
    "array of batch 0": np.zeros((0, 3, 64, 96), np.float32),
    "object": object(),
}
MADE_BY_US = {"Prediction", "View"}
"""What methods return and policies are shown; nobody else makes them."""
PUBLIC = sorted(name for name in foveal.__all__ if callable(getattr(foveal, name)) and name not in MADE_BY_US)


def needed(function: Callable[..., Any]) -> int:
    """Count the arguments that must be given."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(p.default is p.empty and p.kind in kinds for p in parameters)


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised, in words, by this package, and not by what it tried."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    inside = str(Path(foveal.__file__).parent) in last.filename
    return inside and (last.line or "").startswith("raise ") and len(str(error)) > 10


TAKEN = {("street", "number"), ("Preprocess", "number"), ("import_library", "text")}
"""What a public name may be given; there is no library of that name, as Python says."""
CASES = [(name, kind) for name in PUBLIC if needed(getattr(foveal, name)) for kind in GIVEN]


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case not in TAKEN])
def test_public_names_refuse_what_they_cannot_take(name: str, kind: str) -> None:
    function = getattr(foveal, name)
    with pytest.raises((ValueError, OSError)) as caught:
        function(*[GIVEN[kind]] * needed(function))
    assert is_ours(caught.value), caught.value


@pytest.mark.parametrize(
    "options", [{"tile": None}, {"max_level": "a"}, {"budget": None}, {"coarse_level": 0.5}]
)
def test_settings_of_policies(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*; give a"):
        foveal.create_policy("detail", **options)


SHAPE = 1, 3, 64, 96
BLANK, LEVELS = np.zeros(SHAPE, np.float32), np.zeros((1, 2, 3), np.int8)
RIGHT = {
    ("run, settings", "None"), ("run, mask", "None"), ("run, threads", "None"), ("run, threads", "number"),
    ("run, shrunk to", "None"), ("stream, first levels", "None"), ("budget of segment", "number"),
    ("save", "text"),
    ("export, path", "text"), ("info", "None"), ("Dense", "None"),
    ("SegBlocks", "None"), ("dense run", "number"),
    *((f"coarse to fine, {name}", "number") for name in ("tile", "coarse_level", "threshold")),
    ("coarse to fine, threshold", "None"),
}  # fmt: skip
"""What may be given: a name of `CALLS`, and a kind."""


@pytest.fixture(scope="module")
def program() -> Program:
    if not build.available():
        pytest.skip("no compiler")
    return foveal.compile_network(nano())


CALLS: dict[str, Callable[[Program, Any], object]] = {
    "run": lambda program, x: program.run(x),
    "run, settings": lambda program, x: program.run(BLANK, x),
    "run, mask": lambda program, x: program.run(BLANK, mask=x),
    "run, threads": lambda program, x: program.run(BLANK, threads=x),
    "run, shrunk to": lambda program, x: program.run(BLANK, shrunk_to=x),
    "run, levels": lambda program, x: program.run(BLANK, PlannedRun(x)),
    "dense run": lambda program, x: DenseRun(x),
    "segment": lambda program, x: program.segment(x),
    "budget of segment": lambda program, x: program.segment(BLANK, x),
    "stream": lambda program, x: Stream(program, (64, 96)).run(x, PlannedRun(LEVELS)),
    "stream, settings": lambda program, x: Stream(program, (64, 96)).run(BLANK, x),
    "stream, first levels": lambda program, x: Stream(program, (64, 96)).run(BLANK, PlannedRun(LEVELS), x),
    "stream, program": lambda program, x: Stream(x, (64, 96)),
    "stream, size": lambda program, x: Stream(program, x),
    "stream, tile": lambda program, x: Stream(program, (64, 96), x),
    "scales of": lambda program, x: find_scales(x, [BLANK]),
    "scales, images": lambda program, x: find_scales(program, x),
    "scales, an image": lambda program, x: find_scales(program, [x]),
    "save": lambda program, x: program.save(x),
    "load": lambda program, x: load_program(x),
    "export, path": lambda program, x: foveal.export_program(nano(), x),
    "precision": lambda program, x: foveal.export_program(nano(), "x.foveal", x),
    "calibration": lambda program, x: foveal.export_program(nano(), "x.foveal", "int8", x),
    "info": lambda program, x: foveal.export_program(nano(), "x.foveal", info=x),
    "Dense": lambda program, x: foveal.Dense(nano(), x),
    "SegBlocks": lambda program, x: foveal.SegBlocks(nano(), foveal.create_policy("detail"), aim=x),
    "policy": lambda program, x: foveal.SegBlocks(nano(), x),
    **{
        f"coarse to fine, {name}": lambda program, x, name=name: foveal.CoarseToFineRun(**{name: x})
        for name in ("budget", "score", "tile", "coarse_level", "level_gain", "logit_blend", "threshold",
                     "shared", "direct", "isolated_gain")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_programs_and_methods(
    name: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, given in GIVEN.items():
        if (name, kind) in RIGHT:
            CALLS[name](program, given)
            continue
        with pytest.raises((ValueError, OSError)) as caught:
            CALLS[name](program, given)
        assert is_ours(caught.value), (kind, caught.value)


@pytest.mark.parametrize("settings", [foveal.CoarseToFineRun, DenseRun])
def test_sides_of_tiles_that_native_code_cannot_hold(settings: Callable[..., Any]) -> None:
    for tile in (0, -32, (1 << 32) + 32):
        with pytest.raises(ValueError, match=f"tile is {tile}; give a whole number of 1 to"):
            settings(tile=tile)


def test_levels_that_no_byte_holds(program: Program) -> None:
    for levels in (LEVELS + np.int16(256), LEVELS + 0.5):
        with pytest.raises(ValueError, match="-1"):
            program.run(BLANK, PlannedRun(levels))


def test_a_plan_that_is_not_there_is_refused_in_native_code(program: Program) -> None:
    request = Request()
    keep = take_image(request, BLANK, 3)
    request.method, request.tile, request.gains, request.threads = 1, 32, 1, 1
    with pytest.raises(ValueError, match="there is no plan"):
        program.call(request)
    del keep


def test_numbers_beyond_0_to_1_are_warned_of_once(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full(SHAPE, -1, np.float32)
    image[..., 0] = 2
    stream = Stream(program, SHAPE[2:])
    for run in (
        lambda: program.run(image),
        lambda: program.segment(image),
        lambda: stream.run(image, PlannedRun(LEVELS)),
        lambda: find_scales(program, [image]),
    ):
        monkeypatch.setattr(said, "SAID", set())
        with pytest.warns(
            RuntimeWarning, match=r"numbers from -1 to 2; networks of Foveal take 0\.\.1"
        ) as seen:
            run()
            run()
        assert len(seen) == 1


def test_numbers_in_0_to_1_are_not_warned_of(program: Program, recwarn: pytest.WarningsRecorder) -> None:
    program.run(IMAGE)
    program.run((255 * IMAGE).byte().permute(0, 2, 3, 1))
    assert not [w for w in recwarn if "hold numbers" in str(w.message)]


def test_images_of_programs(program: Program) -> None:
    expected = program.run(IMAGE).labels
    assert np.array_equal(program.run(IMAGE.numpy()).labels, expected)
    with pytest.raises(ValueError, match="give an array"):
        program.run(["a"])
    for wrong in (255 * IMAGE, -30 * IMAGE):
        for run in (program.run, program.segment):
            with pytest.raises(ValueError, match=r"hold numbers from .* to .*divide 0\.\.255 by 255"):
                run(wrong)
    with pytest.raises(ValueError, match="empty"):
        program.run(IMAGE[..., :0])
