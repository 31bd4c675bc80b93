"""PyTorch itself: eager, and compiled with the weights frozen."""

from __future__ import annotations

import copy
import os
import shutil
import warnings

import torch
from torch import Tensor, nn

from foveal.benchmark.runtimes.case import Backend, Case, Runtime, Variant, fastest

LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}
COMPILATIONS = 64
"""Most shapes and networks that are compiled in one process."""
NO_INT8 = "PyTorch quantises for processors with torchao, which is not among the runtimes"


def eager(network: nn.Module, layout: str = "channels last") -> Runtime:
    """Make a runtime of a module as it is, in a layout of `LAYOUTS`."""
    laid = copy.deepcopy(network).to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        return laid(image)

    return Runtime(run, LAYOUTS[layout], layout)


def _eager_f32(case: Case) -> Runtime:
    """Run in the faster layout."""
    return fastest({name: eager(case.network, name) for name in LAYOUTS}, case.image)


def _eager_bf16(case: Case) -> Runtime:
    """Run with weights in bf16, or with weights in f32 under autocast, whichever is faster."""
    stored = eager(_Rounded(case.network), "channels last")
    choices = {
        "weights": Runtime(stored.run, stored.layout, "bf16 weights, channels last"),
        "autocast": _autocast(case.network),
    }
    return fastest(choices, case.image)


def _autocast(network: nn.Module) -> Runtime:
    laid = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return laid(image).float()

    return Runtime(run, torch.channels_last, "autocast, channels last")


class _Rounded(nn.Module):
    """A network in bf16 between an image and logits in f32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).bfloat16()

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [N, K, h, w] in f32."""
        return self.network(image.bfloat16()).float()


def _compiled_f32(case: Case) -> Runtime:
    return _compile(case.network, case.image)


def _compiled_bf16(case: Case) -> Runtime:
    return _compile(_Rounded(case.network), case.image)


def _compile(network: nn.Module, image: Tensor) -> Runtime:
    """Compile with weights frozen and packed. A second compilation would not freeze them: refused."""
    from torch._dynamo import config as graphs
    from torch._inductor import config

    network = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(network, dynamic=False, fullgraph=True)
    image = Runtime(compiled, torch.channels_last).lay(image)
    with (
        warnings.catch_warnings(),
        config.patch(freezing=True),
        graphs.patch(recompile_limit=COMPILATIONS),
        torch.inference_mode(),
    ):
        warnings.simplefilter("ignore")
        compiled(image)

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        with torch.compiler.set_stance("fail_on_recompile"):
            return compiled(image)

    return Runtime(run, torch.channels_last, "frozen, channels last")


def find_compiler() -> str | None:
    """Return the C++ compiler that PyTorch's compiler would call."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))), None)


def _no_compiler() -> str:
    return "" if find_compiler() else "put a C++ compiler (g++ or clang++) on the path"


EAGER = Backend(
    "PyTorch, eager", {"f32": Variant(_eager_f32), "bf16": Variant(_eager_bf16)}, {"int8": NO_INT8}
)
COMPILED = Backend(
    "PyTorch, compiled, weights frozen",
    {
        "f32": Variant(_compiled_f32, obstacle=_no_compiler),
        "bf16": Variant(_compiled_bf16, obstacle=_no_compiler),
    },
    {"int8": NO_INT8},
)
