"""OpenVINO: f32, bf16, and int8 by post-training quantisation with NNCF."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from foveal.benchmark.runtimes.case import Backend, Case, Runtime, Variant, fastest, most_faithful
from foveal.benchmark.runtimes.onnx_file import PACKAGES, export_onnx, silence
from foveal.kernels.processor import MULTIPLIES_BYTES, instruction_sets

PRESETS = ("MIXED", "PERFORMANCE")
"""Activations quantised asymmetrically where they have two signs, or symmetrically everywhere."""
DEPTH = 50_000
"""Calls within calls while NNCF works: it walks a network by a call per operation, and adaptive pooling of
large maps is exported as thousands of them."""


def _f32(case: Case) -> Runtime:
    return _compiled(_read(case), "f32", case.threads)


def _bf16(case: Case) -> Runtime:
    return _compiled(_read(case), "bf16", case.threads)


def _int8(case: Case) -> Runtime:
    """Quantise with the preset that agrees better with f32; the rest runs in the faster precision."""
    models = {preset: _quantised(case, preset) for preset in PRESETS}
    best = most_faithful(
        {name: _compiled(model, "f32", case.threads) for name, model in models.items()}, case
    )
    rests = {rest: _compiled(models[best], rest, case.threads) for rest in ("f32", "bf16")}
    found = fastest(rests, case.image)
    settings = f"NNCF {best.lower()}, fast bias correction, rest {found.settings}"
    return Runtime(found.run, found.layout, settings)


def _read(case: Case) -> Any:
    import openvino

    return openvino.Core().read_model(str(export_onnx(case)))


def _compiled(model: Any, hint: str, threads: int) -> Runtime:
    """Compile for one request at a time. Without a hint, some processors would take bf16 for f32."""
    import openvino

    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def run(image: Tensor) -> Tensor:
        request.set_input_tensor(openvino.Tensor(image.numpy(), shared_memory=True))
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data)

    return Runtime(run, settings=f"latency, {hint}")


def _quantised(case: Case, preset: str) -> Any:
    """Quantise weights and activations from the images of the case."""
    with silence(), deep_calls(DEPTH):
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

        nncf.set_log_level(logging.ERROR)
        exact = bool(MULTIPLIES_BYTES & set(instruction_sets()))  # else the first layer keeps a bit free
        return nncf.quantize(
            _read(case),
            nncf.Dataset([image.numpy() for image in case.calibration]),
            preset=nncf.QuantizationPreset[preset],
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(case.calibration),
            fast_bias_correction=True,
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.DISABLE if exact else OverflowFix.FIRST_LAYER
            ),
        )


@contextmanager
def deep_calls(depth: int) -> Iterator[None]:
    """Allow at least `depth` calls of Python within one another."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, depth))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


BACKEND = Backend(
    "OpenVINO",
    {
        "f32": Variant(_f32, (*PACKAGES, "openvino")),
        "bf16": Variant(_bf16, (*PACKAGES, "openvino")),
        "int8": Variant(_int8, (*PACKAGES, "openvino", "nncf")),
    },
)
