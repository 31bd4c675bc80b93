"""The dense network in static runtimes, which adaptive methods are compared with.

Every runtime is prepared for one image size from the same network, whose norms are folded into its
convolutions. Where a runtime leaves a choice, it is tried: the faster setting is kept, and of quantised
networks the one that agrees best with f32.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import NamedTuple

from foveal.benchmark.runtimes import onnx_runtime, openvino, own, pytorch
from foveal.benchmark.runtimes.case import Backend, Case, Runtime, difference
from foveal.benchmark.runtimes.folding import fold_norms
from foveal.benchmark.runtimes.own import OWN
from foveal.calibration.engine import PRECISIONS, Precision

__all__ = [
    "OWN",
    "PRECISIONS",
    "RUNTIMES",
    "Backend",
    "Case",
    "Choice",
    "Precision",
    "Runtime",
    "choose_runtimes",
    "difference",
    "fold_norms",
    "packages_of",
    "parse_precision",
    "prepare",
]

RUNTIMES: dict[str, Backend] = {
    "torch": pytorch.EAGER,
    "compile": pytorch.COMPILED,
    "onnxruntime": onnx_runtime.BACKEND,
    "openvino": openvino.BACKEND,
    OWN: own.BACKEND,
}


class Choice(NamedTuple):
    """A runtime in one precision."""

    runtime: str
    precision: Precision


def choose_runtimes(
    names: Sequence[str] | None = None, precisions: Sequence[str] = ("f32",)
) -> tuple[list[Choice], list[str]]:
    """Check the runtimes that are asked for, or find those that can run here.

    Args:
        names: In `RUNTIMES`; all if absent.
        precisions: In `PRECISIONS`.

    Returns:
        What can run, and a sentence for everything that cannot.

    Raises:
        ValueError: No runtime or precision of that name, or a runtime that is named can run in none.
    """
    kinds = [parse_precision(text) for text in dict.fromkeys(precisions)]
    for name in names or ():
        if name not in RUNTIMES:
            close = get_close_matches(name, RUNTIMES, 1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise ValueError(f"no runtime named '{name}'; {hint}available: {', '.join(RUNTIMES)}")
    if names is not None and not names:
        raise ValueError(f"no runtime is named; give some of {', '.join(RUNTIMES)}")
    chosen, sentences = [], []
    for name in dict.fromkeys(RUNTIMES if names is None else names):
        reasons = {precision: obstacle(name, precision) for precision in kinds}
        chosen += [Choice(name, precision) for precision, reason in reasons.items() if not reason]
        if names is not None and all(reasons.values()):
            raise ValueError(f"the runtime '{name}' is not available: {_listed(reasons)}; leave it out")
        if any(reasons.values()):
            sentences.append(f"the runtime '{name}' is not available in {_listed(reasons)}")
    return chosen, sentences


def parse_precision(text: str) -> Precision:
    """Read the name of a precision.

    Raises:
        ValueError: There is none of that name.
    """
    for precision in PRECISIONS:
        if precision == text:
            return precision
    raise ValueError(f"no precision named '{text}'; give some of {', '.join(PRECISIONS)}")


def obstacle(name: str, precision: Precision) -> str:
    """Say why a runtime cannot run in a precision here; empty if it can."""
    backend = RUNTIMES[name]
    if precision not in backend.variants:
        return backend.absent[precision]
    variant = backend.variants[precision]
    missing = [package for package in variant.packages if find_spec(package) is None]
    if missing:
        return f"{', '.join(missing)} must be installed (pip install 'foveal[bench]')"
    return variant.obstacle()


def prepare(choice: Choice, case: Case) -> Runtime:
    """Prepare a runtime for a case.

    Raises:
        ValueError: It cannot run the network, or int8 has no images for its calibration.
    """
    if choice.precision == "int8" and not case.calibration:
        raise ValueError(f"the runtime '{choice.runtime}' needs images to calibrate int8; give some")
    try:
        return RUNTIMES[choice.runtime].variants[choice.precision].prepare(case)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the runtime '{choice.runtime}' cannot run this network in {choice.precision} "
            f"({type(error).__name__}: {line}); leave it out"
        ) from error


def packages_of(choices: Sequence[Choice]) -> set[str]:
    """Return the packages that runtimes need."""
    return {package for name, precision in choices for package in RUNTIMES[name].variants[precision].packages}


def _listed(reasons: dict[Precision, str]) -> str:
    """Join precisions that have one reason: bf16 and int8: the reason."""
    grouped: dict[str, list[str]] = {}
    for precision, reason in reasons.items():
        if reason:
            grouped.setdefault(reason, []).append(precision)
    return "; ".join(f"{' and '.join(names)}: {reason}" for reason, names in grouped.items())
