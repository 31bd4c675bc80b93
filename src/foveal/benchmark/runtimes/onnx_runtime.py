"""ONNX Runtime: f32, and int8 by its static quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.benchmark.runtimes.case import Backend, Case, Runtime, Variant, fastest, most_faithful
from foveal.benchmark.runtimes.onnx_file import PACKAGES, export_onnx, silence
from foveal.kernels.processor import MULTIPLIES_BYTES, instruction_sets

SPINNING = {"threads sleep": "0", "threads spin": "1"}
RANGES = ("MinMax", "Entropy")
"""How ranges of activations may be found."""
HISTOGRAMS = 8
"""Most images that ranges are found from by histograms, which read every activation on one thread."""


def _f32(case: Case) -> Runtime:
    """Open the network with its threads waiting in the better way."""
    return _faster_waiting(export_onnx(case), case)


def _int8(case: Case) -> Runtime:
    """Quantise per channel, with the ranges that agree better with f32."""
    files = {name: _quantised(case, name) for name in RANGES}
    sessions = {name: _session(path, "threads sleep", case.threads) for name, path in files.items()}
    best = most_faithful(sessions, case)
    found = _faster_waiting(files[best], case)
    return Runtime(found.run, found.layout, f"QDQ, {best} ranges, per channel, {found.settings}")


def _faster_waiting(path: Path, case: Case) -> Runtime:
    return fastest({name: _session(path, name, case.threads) for name in SPINNING}, case.image)


def _session(path: Path, spinning: str, threads: int) -> Runtime:
    """Open a session that reads the image and writes the logits where they are, without a copy."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", SPINNING[spinning])
    options.add_session_config_entry("session.force_spinning_stop", "1")  # it must not disturb who comes next
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (source,), (target,) = session.get_inputs(), session.get_outputs()
    logits, binding = torch.empty(target.shape), session.io_binding()
    binding.bind_output(target.name, "cpu", 0, "float32", target.shape, logits.data_ptr())

    def run(image: Tensor) -> Tensor:
        binding.bind_input(source.name, "cpu", 0, "float32", list(image.shape), image.data_ptr())
        session.run_with_iobinding(binding)
        return logits

    return Runtime(run, settings=spinning)


def _quantised(case: Case, ranges: str) -> Path:
    """Write the network with quantised convolutions."""
    import onnx
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, path = case.folder / "prepared.onnx", case.folder / f"int8_{ranges}.onnx"
    with silence():
        if not prepared.is_file():
            quant_pre_process(export_onnx(case), prepared, skip_symbolic_shape=True)
        types = list({node.op_type for node in onnx.load(prepared).graph.node} & set(q.registry.QDQRegistry))
        method = q.CalibrationMethod[ranges]
        calibrator = q.create_calibrator(
            prepared, types, str(case.folder / f"augmented_{ranges}.onnx"), method
        )
        name = onnx.load(prepared).graph.input[0].name
        for image in case.calibration[: HISTOGRAMS if ranges == "Entropy" else None]:
            calibrator.collect_data(_reader(name, [image]))  # one at a time: all activations are kept
        quantizer = q.QDQQuantizer(
            onnx.load(prepared),
            per_channel=True,
            reduce_range=not MULTIPLIES_BYTES & set(instruction_sets()),
            weight_qType=q.QuantType.QInt8,
            activation_qType=q.QuantType.QUInt8,
            tensors_range=calibrator.compute_data(),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=types,
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(path))
    return path


def _reader(name: str, images: Sequence[Tensor]) -> Any:
    """Hand images to the calibration, one after the other."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.waiting = [np.ascontiguousarray(image.numpy()) for image in images]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {name: self.waiting.pop(0)} if self.waiting else None

    return Reader()


BACKEND = Backend(
    "ONNX Runtime",
    {
        "f32": Variant(_f32, (*PACKAGES, "onnxruntime")),
        "int8": Variant(_int8, (*PACKAGES, "onnxruntime")),
    },
    {"bf16": "ONNX Runtime has no bf16 convolutions for processors"},
)
