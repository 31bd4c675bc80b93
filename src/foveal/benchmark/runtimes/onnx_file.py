"""The network as an ONNX file of static shape, once for all runtimes of a case."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from foveal.benchmark.runtimes.case import Case

PACKAGES = ("onnx", "onnxscript")


def export_onnx(case: Case) -> Path:
    """Write the network of a case, unless its folder has it already."""
    path = case.folder / "network.onnx"
    if not path.is_file():
        with silence():
            torch.onnx.export(
                copy.deepcopy(case.network),
                (case.image,),
                path,
                dynamo=True,
                verbose=False,
                optimize=True,
                external_data=False,  # one file: ONNX Runtime's quantisation moves it
            )
    return path


@contextmanager
def silence() -> Iterator[None]:
    """Keep warnings and progress bars of other packages off stdout and stderr."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
