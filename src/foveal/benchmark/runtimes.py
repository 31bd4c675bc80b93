"""The dense network in other runtimes: what an adaptive method has to beat.

Every peer is prepared for one image size, in single precision, from the same network, whose norms are
folded into its convolutions. Where a runtime leaves a choice, the peer tries it and keeps the faster.
"""

from __future__ import annotations

import copy
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from foveal.cost import alternate
from foveal.storage.names import find

TRIALS = 5
"""Timed runs of every choice that a peer tries."""
LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}
SPINNING = {"threads sleep": "0", "threads spin": "1"}


@dataclass(frozen=True)
class Case:
    """What a peer is prepared for.

    Attributes:
        network: The dense network from `fold_norms`, in evaluation mode; peers copy what they change.
        image: [N, 3, H, W] in 0..1, contiguous.
        threads: Threads of the processor.
        folder: Place for files, shared by the peers.
    """

    network: nn.Module
    image: Tensor
    threads: int
    folder: Path


@dataclass(frozen=True)
class Runtime:
    """A prepared peer.

    Attributes:
        run: From an image that `lay` returned, of the case's shape, to logits [N, K, h, w], which are valid
            until the next call.
        layout: Memory format in which it takes images.
        settings: What was chosen where the runtime leaves a choice.
    """

    run: Callable[[Tensor], Tensor]
    layout: torch.memory_format = torch.contiguous_format
    settings: str = ""

    def lay(self, image: Tensor) -> Tensor:
        """Copy an image [N, 3, H, W] into the runtime's layout, as an ordinary tensor."""
        with torch.inference_mode(False):
            return image.clone(memory_format=self.layout)


@dataclass(frozen=True)
class Peer:
    """A runtime of the table.

    Attributes:
        prepare: Makes it ready for a case.
        says: One line about it.
        packages: What must be installed.
    """

    prepare: Callable[[Case], Runtime]
    says: str
    packages: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """What must be done before the peer can run; empty if nothing."""
        if any(find_spec(package) is None for package in self.packages):
            return "install it: pip install 'foveal[bench]'"
        if self.prepare is _compile and not _compiler():
            return "put a C++ compiler (g++ or clang++) on the path"
        return ""


def choose_peers(wanted: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """Check the peers that are asked for, or find those that can run here.

    Args:
        wanted: Names in `PEERS`; all that can run if absent.

    Returns:
        Names, and a sentence for each that was left out.

    Raises:
        ValueError: No peer of that name, or what it needs is missing.
    """
    for name in [] if wanted is None else wanted:
        peer = find(name, PEERS, "peer")
        if peer.missing:
            raise ValueError(f"the peer '{name}' is not there; {peer.missing}, or leave it out")
    if wanted:
        return list(dict.fromkeys(wanted)), []
    if wanted is not None:
        raise ValueError(f"no peer is named; give some of {', '.join(PEERS)}")
    absent = {name: peer.missing for name, peer in PEERS.items() if peer.missing}
    sentences = [f"the peer '{name}' is left out; {reason}" for name, reason in absent.items()]
    return [name for name in PEERS if name not in absent], sentences


def prepare(name: str, case: Case) -> Runtime:
    """Prepare a peer for a case.

    Raises:
        ValueError: It cannot run the network.
    """
    try:
        return PEERS[name].prepare(case)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the peer '{name}' cannot run this network ({type(error).__name__}: {line}); leave it out"
        ) from error


@torch.inference_mode()
def fold_norms(network: nn.Module, side: int = 64) -> nn.Module:
    """Copy a network with every norm folded into the convolution whose output it is given, and no other.

    Which these are is seen by running an image of `side` x `side` px; a layer that runs twice stays as it is.
    """
    network = copy.deepcopy(network).eval()
    made: list[tuple[str, Tensor]] = []
    pairs: list[tuple[str, str]] = []

    def follow(name: str, norm: nn.Module, inputs: tuple[Tensor]) -> None:
        pairs.extend((conv, name) for conv, out in made if out is inputs[0])

    def remember(name: str, conv: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        made.append((name, out))

    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(partial(remember, name)))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(partial(follow, name)))
    network(torch.rand(1, 3, side, side))
    for handle in handles:
        handle.remove()
    for conv, norm in pairs:
        if sum(name == conv for name, _ in made) == sum(name == norm for _, name in pairs) == 1:
            _fold(network, conv, norm)
    return network


def difference(logits: Tensor, reference: Tensor) -> float:
    """Largest absolute difference of logits [N, K, h, w], as a share of the largest absolute value."""
    return float((logits - reference).abs().max() / reference.abs().max())


def _fold(network: nn.Module, conv: str, norm: str) -> None:
    """Replace two submodules by their product."""
    folded = fuse_conv_bn_eval(network.get_submodule(conv), network.get_submodule(norm))  # type: ignore[type-var, arg-type]
    network.set_submodule(conv, folded)
    network.set_submodule(norm, nn.Identity())


def _faster(choices: dict[str, Runtime], image: Tensor) -> Runtime:
    """Measure every choice alone, and keep the fastest."""
    times = {}
    for name, runtime in choices.items():
        run = partial(runtime.run, runtime.lay(image))
        times[name] = alternate({name: run}, TRIALS, warmup=1)[name].median
    return choices[min(times, key=lambda name: times[name])]


def _torch(case: Case) -> Runtime:
    """Eager PyTorch, in the faster layout."""
    return _faster({name: eager(case.network, name) for name in LAYOUTS}, case.image)


def eager(network: nn.Module, layout: str = "channels last") -> Runtime:
    """Make a runtime of a module as it is, in a layout of `LAYOUTS`."""
    laid = copy.deepcopy(network).to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        return laid(image)

    return Runtime(run, LAYOUTS[layout], layout)


def _compile(case: Case) -> Runtime:
    """PyTorch's compiler, weights frozen and packed. A second compilation would not freeze them: refused."""
    from torch._inductor import config

    network = copy.deepcopy(case.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(network, dynamic=False, fullgraph=True)
    image = case.image.clone(memory_format=torch.channels_last)
    with warnings.catch_warnings(), config.patch(freezing=True), torch.inference_mode():
        warnings.simplefilter("ignore")
        compiled(image)

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        with torch.compiler.set_stance("fail_on_recompile"):
            return compiled(image)

    return Runtime(run, torch.channels_last, "frozen, channels last")


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))), None)


def _onnxruntime(case: Case) -> Runtime:
    """ONNX Runtime on the processor, its threads waiting in the better way."""
    return _faster({name: _session(case, name) for name in SPINNING}, case.image)


def _session(case: Case, spinning: str) -> Runtime:
    """Open a session that reads the image and writes the logits where they are, without a copy."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = case.threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", SPINNING[spinning])
    options.add_session_config_entry("session.force_spinning_stop", "1")  # it must not disturb who comes next
    session = onnxruntime.InferenceSession(_onnx(case), options, providers=["CPUExecutionProvider"])
    (source,), (target,) = session.get_inputs(), session.get_outputs()
    logits, binding = torch.empty(target.shape), session.io_binding()
    binding.bind_output(target.name, "cpu", 0, "float32", target.shape, logits.data_ptr())

    def run(image: Tensor) -> Tensor:
        binding.bind_input(source.name, "cpu", 0, "float32", list(image.shape), image.data_ptr())
        session.run_with_iobinding(binding)
        return logits

    return Runtime(run, settings=spinning)


def _openvino(case: Case) -> Runtime:
    """OpenVINO in single precision: on some processors it would take bfloat16 by itself."""
    import openvino

    core = openvino.Core()
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": case.threads,
    }
    request = core.compile_model(core.read_model(_onnx(case)), "CPU", options).create_infer_request()

    def run(image: Tensor) -> Tensor:
        request.set_input_tensor(openvino.Tensor(image.numpy(), shared_memory=True))
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data)

    return Runtime(run, settings="latency, f32")


def _onnx(case: Case) -> str:
    """Write the network as an ONNX file of static shape, once for all peers."""
    path = case.folder / "network.onnx"
    if not path.is_file():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                copy.deepcopy(case.network), (case.image,), path, dynamo=True, verbose=False, optimize=True
            )
    return str(path)


PEERS: dict[str, Peer] = {
    "torch": Peer(_torch, "PyTorch, eager"),
    "compile": Peer(_compile, "PyTorch, compiled, weights frozen"),
    "onnxruntime": Peer(_onnxruntime, "ONNX Runtime", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": Peer(_openvino, "OpenVINO", ("onnx", "onnxscript", "openvino")),
}
