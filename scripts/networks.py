"""Try other people's networks on tiles, and write docs/networks.md: what runs, what it takes.

    python scripts/networks.py                   # networks that benchmarks/networks/networks.json lacks, or
                                                 # has no times of, or earlier ones
    python scripts/networks.py --only 'Unet.*'   # those again whose name fits
    python scripts/networks.py --only 'PAN.*' --untimed  # all but times, on a machine that others use too
    python scripts/networks.py --times           # the times of all rows again, and nothing else
    python scripts/networks.py --table           # the page alone, from the file

Needs segmentation-models-pytorch, torchvision and transformers; weights are random, nothing is downloaded.
With openvino, onnx and onnxscript the networks are timed in OpenVINO too.
Every network runs in a process of its own: what it does wrong is a row, not an end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from foreign_networks import networks
from networks_page import TIMES, page
from torch import Tensor, nn

from foveal.adaptive.model import AdaptiveModel
from foveal.benchmark.machine import describe_machine, quiet_machine
from foveal.benchmark.rival import openvino_rival
from foveal.cost import alternate
from foveal.storage.atomic import write_atomically

ROOT = Path(__file__).resolve().parent.parent
STORE, PAGE = ROOT / "benchmarks" / "networks" / "networks.json", ROOT / "docs" / "networks.md"
SIZES = ((256, 256), (132, 164))
TIMED, ROUNDS = (512, 768), 5
BUDGET = 0.4
SECONDS, WAIT = 900, 3600
"""What a network may take of the processor, and how long it is waited for where others compute too [s]."""
MEMORY = 12 << 30
"""What a network may take [bytes]; more is a row that says so."""


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        library: Where it comes from.
        name: The network and, after a slash, its encoder.
        refused: Why `foveal.adapt` refuses it; empty if it does not.
        failed: What went wrong after that; empty if nothing did.
        dense_modules: Names of the submodules that run dense.
        dense_share: Their share of the dense network's MACs.
        difference: Largest difference from the dense network, all tiles at one level, relative to its largest
            logit; over the levels of two sizes.
        told: What is said where budget 0.4 leaves nothing to refine; empty if it does not.
        macs: Counted MACs at budget 0.4, as a share of the dense network's, coarse to fine.
        work: Share of the tiles' work that they took.
        dense_ms: Time of the network in PyTorch on an image of `TIMED` px [ms], median of runs in turns; None
            if it was not measured.
        static_ms: Time in OpenVINO, f32, there [ms]; None if it was not measured.
        no_static: Why OpenVINO does not run it; empty if it does, or is not there.
        own_ms: Time dense by `model(image, budget=1.0)` there [ms].
        ms: Time at budget 0.4 there [ms].
        engine: "program", or why it runs layer by layer.
        versions: Of PyTorch and the library.
        commit: Of this project.
        timed: Commit that the times are of; empty without times.
    """

    library: str
    name: str
    refused: str = ""
    failed: str = ""
    dense_modules: tuple[str, ...] = ()
    dense_share: float | None = None
    difference: float | None = None
    told: str = ""
    macs: float | None = None
    work: float | None = None
    dense_ms: float | None = None
    static_ms: float | None = None
    no_static: str = ""
    own_ms: float | None = None
    ms: float | None = None
    engine: str = ""
    versions: str = ""
    commit: str = ""
    timed: str = ""


def enliven(network: nn.Module) -> nn.Module:
    """Give norms of an untrained network statistics that matter, so that logits differ by place."""
    torch.manual_seed(0)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
                if values is not None:
                    nn.init.uniform_(values, 0.5, 1.5)
    return network.eval()


def picture(size: tuple[int, int]) -> Tensor:
    """Draw patches of several sizes [1, 3, H, W] in 0..1."""
    draw = torch.Generator().manual_seed(1)
    small = torch.rand(1, 3, 9, 11, generator=draw)
    large = nn.functional.interpolate(small, size=size, mode="bicubic")
    return (large + 0.1 * torch.rand(large.shape, generator=draw)).clamp(0, 1)


@torch.no_grad()
def try_network(library: str, name: str, make: Callable[[], nn.Module], timed: bool) -> Row:
    """Check a network, adapt it, run both methods at two sizes, and take the time of one."""
    import foveal

    warnings.filterwarnings("ignore")
    network = enliven(make())
    versions = f"torch {torch.__version__}, {library} {importlib.import_module(library).__version__}"
    row = Row(library, name, versions=versions, commit=describe_machine().commit)
    try:
        model = foveal.adapt(network)
    except (ValueError, TypeError) as error:
        return replace(row, refused=_sentence(error))
    shape = model.spec.shape
    side = max(SIZES[0][0], 4 * model.spec.tile)
    tried = foveal.check(model.prepared, (side, side), model.spec.tile, shape.in_channels, shape.multiple)
    row = replace(
        row,
        dense_modules=tuple(model.spec.dense_modules),
        dense_share=tried.dense_share or 0.0,
        difference=max(
            ((c.difference or 0.0) / c.scale for c in tried.comparisons if not c.error), default=None
        ),
        engine="program" if not model.engine.why_not else _sentence(model.engine.why_not),
    )
    blocks = foveal.adapt(network, method="segblocks")
    try:
        for size in (*SIZES, TIMED):
            image = picture(size)
            for each in (model, blocks):
                part = each(image, budget=BUDGET, always_adapt=True)
                assert part.labels.shape[1:] == size and bool(part.confidence.isfinite().all())
    except ValueError as error:
        if "must see the whole map" not in str(error):
            raise
        return replace(row, told=_sentence(error))
    image = picture(TIMED)
    full, part = model(image, budget=1.0), model(image, budget=BUDGET, always_adapt=True)
    assert full.reason, "the dense network runs: what shares are of"
    row = replace(row, macs=part.macs / full.macs, work=float(part.work.mean()))
    return replace(row, **times(model)) if timed else row


@torch.no_grad()
def times(model: AdaptiveModel) -> dict[str, Any]:
    """Time a network on an image of `TIMED` px in turns: in PyTorch, in OpenVINO, dense, at budget 0.4."""
    image = picture(TIMED)
    runs = {
        "dense_ms": lambda: model.prepared(image),
        "own_ms": lambda: model(image, budget=1.0),
        "ms": lambda: model(image, budget=BUDGET, always_adapt=True),
    }
    with tempfile.TemporaryDirectory() as folder:
        static, no_static = openvino_rival(model.prepared, image, Path(folder))
        if static is not None:
            laid = static.lay(image)
            runs["static_ms"] = partial(static.run, laid)
        with quiet_machine():
            taken = alternate(runs, ROUNDS, warmup=1)
    return {name: one.median for name, one in taken.items()} | {
        "no_static": no_static,
        "timed": describe_machine().commit,
    }


def time_network(name: str) -> dict[str, Any]:
    """Adapt a network, and return its times."""
    import foveal

    warnings.filterwarnings("ignore")
    make = next(make for _, other, make in networks() if other == name)
    return times(foveal.adapt(enliven(make())))


def _sentence(error: object) -> str:
    return re.sub(r"\S*site-packages/", "", " ".join(str(error).split()))[:300]


def run_all(only: str, timed: bool) -> None:
    """Try what is missing, or what `only` names, each in a process of its own; store every row at once."""
    rows = {row["name"]: row for row in _stored()}
    for library, name, _ in networks():
        if not re.fullmatch(only, name) if only else name in rows and not (timed and _untimed(rows[name])):
            continue
        print(f"{name} ...", flush=True)
        row = _run(library, name, () if timed else ("--untimed",))
        rows[name] = row if timed else _with_times(row, rows.get(name))
        ran = f"MACs {row['macs']:.3f}, dense {row['dense_modules']}, {row['engine']}" if row["macs"] else ""
        print("   ", row["refused"] or row["failed"] or row["told"] or ran)
        _store(rows)


def time_all(only: str) -> None:
    """Take the times of stored rows again, each in a process of its own; store every row at once."""
    rows = {row["name"]: row for row in _stored()}
    for library, name, _ in networks():
        if rows.get(name, {}).get("macs") is None or not re.fullmatch(only or ".*", name):
            continue
        found = _run(library, name, ("--times",))
        print(
            f"{name}: {found['failed'] or {key: found[key] for key in TIMES if found.get(key)}}", flush=True
        )
        if not found["failed"]:
            rows[name] = {**rows[name], **{key: found.get(key) for key in (*TIMES, "no_static", "timed")}}
            _store(rows)


def _store(rows: dict[str, dict[str, Any]]) -> None:
    known = [rows[name] for _, name, _ in networks() if name in rows]
    STORE.parent.mkdir(parents=True, exist_ok=True)
    record = asdict(describe_machine()) | {"command": "make networks", "rows": known}
    write_atomically(STORE, json.dumps(record, indent=1) + "\n")


def _run(library: str, name: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Run one network in a process of its own, and return what it prints, or a row that says what failed."""
    words = [sys.executable, __file__, "--one", name, *options]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT, check=False)
    except subprocess.TimeoutExpired:
        return _failed(library, name, f"took more than {WAIT} s")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    crash = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if done.returncode == -signal.SIGXCPU:
        crash = f"took more than {SECONDS} s of the processor"
    return _failed(library, name, _sentence(crash))


def _failed(library: str, name: str, why: str) -> dict[str, Any]:
    return asdict(Row(library, name, failed=why, commit=describe_machine().commit))


def _untimed(row: dict[str, Any]) -> bool:
    return row["macs"] is not None and (row["ms"] is None or row["timed"] != row["commit"])


def _with_times(row: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """Keep the times of an earlier row, and its commit, if the same kind of engine runs."""
    if before is None or row["macs"] is None or before["ms"] is None:
        return row
    if (row["engine"] == "program") != (before["engine"] == "program"):
        return row
    return {**row, **{key: before.get(key) for key in (*TIMES, "no_static", "timed")}}


def _stored() -> list[dict[str, Any]]:
    return json.loads(STORE.read_text())["rows"] if STORE.exists() else []


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="regular expression of names that run again")
    parser.add_argument("--one", default="", help="run one network and print its row")
    parser.add_argument("--untimed", action="store_true", help="take no times: others use the machine too")
    parser.add_argument(
        "--times", action="store_true", help="take the times of stored rows, or of --only, again"
    )
    parser.add_argument("--table", action="store_true", help="write the page alone")
    given = parser.parse_args()
    if given.one:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 60))
        if given.times:
            print(json.dumps({"failed": "", **time_network(given.one)}))
            return
        library, name, make = next(entry for entry in networks() if entry[1] == given.one)
        print(json.dumps(asdict(try_network(library, name, make, not given.untimed))))
        return
    if given.times:
        time_all(given.only)
    elif not given.table:
        run_all(given.only, not given.untimed)
    write_atomically(PAGE, page(_stored(), [name for _, name, _ in networks()]))


if __name__ == "__main__":
    main()
