"""Which runtimes a speed was compared with, in a sentence below its table, from the rows of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "torch": "eager PyTorch",
    "compile": "torch.compile",
}
"""Rivals by the names that `foveal bench` gives them."""


def rivals_text(results: Sequence[Mapping[str, Any]]) -> str:
    """Name the rivals that ran for every one of some results, those that did not, and the weights."""
    ran = [{row["runtime"] for row in result["dense"]} for result in results]
    everywhere, anywhere = set.intersection(*ran), set.union(*ran)
    said = [f"Rivals that ran: {_list(_kinds(results, name) for name in NAMES if name in everywhere)}"]
    some = [name for name in NAMES if name in anywhere - everywhere]
    if some:
        said.append(f"in some rows only: {_list(_kinds(results, name) for name in some)}")
    absent = [NAMES[name] for name in NAMES if name not in anywhere]
    if absent:
        said.append(f"{_list(absent)} did not run")
    weights = dict.fromkeys(f"{result['model']} {result['weights']}" for result in results)
    return f"{'; '.join(said)}. Weights: {_list(weights)}."


def _kinds(results: Sequence[Mapping[str, Any]], name: str) -> str:
    """Name a runtime and the precisions that it ran in."""
    rows = [row for result in results for row in result["dense"] if row["runtime"] == name]
    return f"{NAMES[name]} ({', '.join(dict.fromkeys(row.get('precision', 'f32') for row in rows))})"


def _list(parts: Any) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
