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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from foveal.adaptive.model import AdaptiveModel
from foveal.benchmark.machine import describe_machine, quiet_machine
from foveal.benchmark.rival import openvino_rival
from foveal.cost import alternate
from foveal.models.adapters.torchvision import import_torchvision
from foveal.storage.atomic import write_atomically

ROOT = Path(__file__).resolve().parent.parent
STORE, PAGE = ROOT / "benchmarks" / "networks" / "networks.json", ROOT / "docs" / "networks.md"
SIZES = ((256, 256), (132, 164))
TIMED, ROUNDS = (512, 768), 5
BUDGET, CLASSES = 0.4, 7
TIMES = ("dense_ms", "static_ms", "own_ms", "ms")
"""Columns of times: PyTorch, OpenVINO, our dense network, and the method."""
SECONDS, WAIT = 900, 3600
"""What a network may take of the processor, and how long it is waited for where others compute too [s]."""
MEMORY = 12 << 30
"""What a network may take [bytes]; more is a row that says so."""
PLAIN = ("resnet18", "resnet34", "resnet50", "efficientnet-b0", "mobilenet_v2", "timm-regnety_002")
TIMM = ("tu-convnext_tiny", "mit_b0")
KINDS = (
    "resnext50_32x4d",
    "densenet121",
    "vgg11_bn",
    "se_resnet50",
    "xception",
    "inceptionv4",
    "timm-res2net50_26w_4s",
    "mobileone_s0",
    "dpn68",
    "timm-skresnet18",
    "timm-resnest14d",
)
"""Encoders of other kinds: groups, dense joins, no residuals, gates, depthwise, branches, split attention."""
SMP: dict[str, tuple[str, ...]] = {
    "Unet": (*PLAIN, "timm-mobilenetv3_large_100", *TIMM, *KINDS),
    "UnetPlusPlus": ("resnet34", "efficientnet-b0", "mobilenet_v2", "tu-convnext_tiny"),
    "FPN": ("resnet34", "efficientnet-b0", "mobilenet_v2", *TIMM),
    "DeepLabV3Plus": ("resnet34", "efficientnet-b0", "mobilenet_v2", "tu-convnext_tiny"),
    "DeepLabV3": ("resnet34",),
    "Linknet": ("resnet34", "efficientnet-b0", "mobilenet_v2", "tu-convnext_tiny"),
    "PSPNet": ("resnet34", "efficientnet-b0", *TIMM),
    "PAN": ("resnet34",),
    "MAnet": ("resnet34",),
    "UPerNet": ("resnet34", *TIMM),
    "Segformer": ("resnet34", "mit_b0"),
}
TORCHVISION = (
    "fcn_resnet50",
    "lraspp_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_mobilenet_v3_large",
)
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SegFormer": ("Segformer", {}),
    "UPerNet-ResNet": (
        "UperNet",
        {"backbone": ("ResNet", {"out_features": ["stage1", "stage2", "stage3", "stage4"]})},
    ),
    "UPerNet-ConvNeXt": (
        "UperNet",
        {
            "backbone": (
                "ConvNext",
                {
                    "hidden_sizes": [96, 192, 384, 768],
                    "out_features": ["stage1", "stage2", "stage3", "stage4"],
                },
            )
        },
    ),
    "DPT": (
        "DPT",
        {"hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 192, "image_size": 256},
    ),
    "BEiT": (
        "Beit",
        {
            "hidden_size": 96,
            "num_attention_heads": 4,
            "intermediate_size": 192,
            "image_size": 256,
            "out_indices": [3, 5, 7, 11],
        },
    ),
    "MobileViT": ("MobileViT", {}),
    "MobileViTV2": ("MobileViTV2", {}),
    "MobileNetV2-DeepLab": ("MobileNetV2", {}),
}


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


def make_smp(architecture: str, encoder: str) -> nn.Module:
    """Make a network of segmentation_models_pytorch."""
    import_torchvision()
    smp = importlib.import_module("segmentation_models_pytorch")
    made: nn.Module = getattr(smp, architecture)(encoder, encoder_weights=None, classes=CLASSES)
    return made


def make_torchvision(name: str) -> nn.Module:
    """Make a network of torchvision."""
    import_torchvision()
    models = importlib.import_module("torchvision.models.segmentation")
    made: nn.Module = getattr(models, name)(weights=None, weights_backbone=None, num_classes=CLASSES)
    return made


def make_transformers(family: str, settings: dict[str, Any]) -> nn.Module:
    """Make a network of transformers."""
    import_torchvision()
    library = importlib.import_module("transformers")
    given = dict(settings)
    if "backbone" in given:
        backbone, options = given.pop("backbone")
        given["backbone_config"] = getattr(library, f"{backbone}Config")(**options)
    config = getattr(library, f"{family}Config")(num_labels=CLASSES, **given)
    made: nn.Module = getattr(library, f"{family}ForSemanticSegmentation")(config)
    return made


def make_dpt(dynamic: bool) -> nn.Module:
    """Make the DPT of segmentation_models_pytorch, on a small encoder that takes one size or many."""
    import_torchvision()
    smp = importlib.import_module("segmentation_models_pytorch")
    settings = {"encoder_weights": None, "classes": CLASSES, "dynamic_img_size": dynamic}
    made: nn.Module = smp.DPT("tu-vit_tiny_patch16_224", **settings)
    return made


def make_mask2former() -> nn.Module:
    """Make a small Mask2Former, whose logits are of queries."""
    import_torchvision()
    library = importlib.import_module("transformers")
    stages = [f"stage{k}" for k in range(1, 5)]
    backbone = library.SwinConfig(
        embed_dim=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], out_features=stages
    )
    sizes = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_queries": 10}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_feedforward_dim": 64, "dim_feedforward": 64}
    config = library.Mask2FormerConfig(backbone_config=backbone, num_labels=CLASSES, **sizes, **layers)
    made: nn.Module = library.Mask2FormerForUniversalSegmentation(config)
    return made


def networks() -> Iterator[tuple[str, str, Callable[[], nn.Module]]]:
    """Name every network: library, name, and what makes it."""
    for architecture, encoders in SMP.items():
        for encoder in encoders:
            yield (
                "segmentation_models_pytorch",
                f"{architecture}/{encoder}",
                partial(make_smp, architecture, encoder),
            )
    yield "segmentation_models_pytorch", "DPT/vit_tiny", partial(make_dpt, False)
    yield "segmentation_models_pytorch", "DPT/vit_tiny-dynamic", partial(make_dpt, True)
    for name in TORCHVISION:
        yield "torchvision", name, partial(make_torchvision, name)
    for name, (family, settings) in TRANSFORMERS.items():
        yield "transformers", name, partial(make_transformers, family, settings)
    yield "transformers", "Mask2Former", make_mask2former


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


HEAD = """# Other people's networks

Written by `make networks` from runs of every network with random weights, at 256x256 px, at the ragged
132x164 px and at 512x768 px, with both methods; [networks.json](../benchmarks/networks/networks.json) has the
rows, and names the machine.
Each takes `foveal.adapt(network)` and a call. It compares every level with the dense network on the
reduced image, at two sizes, and refuses what differs by more than 1e-4 but for rounding; then both methods
run at budget 0.4.
*Dense* are modules that see the whole map, found by trying; *share* is what they take of the dense network's
multiplications at 256x256 px, or at four tiles if these are larger, which no budget saves. *Differs* is the
largest difference from the dense network with all tiles at one level, relative to its largest logit (-: no
level of these sizes fits its tile). *MACs* are counted while `model(image, budget=0.4)` runs at 512x768 px,
as a share of the dense network's. *ms* are medians of runs in turns on two cores in f32, there: the network
in PyTorch, to logits; in OpenVINO, to labels (-: it cannot run it, or was not there); *own* is
`model(image, budget=1.0)`, dense, and *0.4* this call, both to labels (\\*: by an earlier version than the
other rows). Transformers whose attention leaves nothing to refine at budget 0.4 are told so, below.

| network | encoder | dense modules | share | differs | MACs | ms, PyTorch | OpenVINO | own | 0.4 | runs |
|---|---|---|---|---|---|---|---|---|---|---|
"""
MANY = 4
"""Names of dense modules that a row lists."""


def write_page() -> None:
    """Write the page from the stored rows."""
    rows = [row for row in _stored() if "dense_ms" in row]
    missing = [name for _, name, _ in networks() if name not in {row["name"] for row in rows}]
    ran = [row for row in rows if not (row["refused"] or row["failed"] or row["told"])]
    good = sum(row["macs"] <= 0.45 for row in ran)
    compiled = sum(row["engine"] == "program" for row in ran)
    gains = {key: [row[key] / row["ms"] for row in ran if row.get(key) and row["ms"]] for key in TIMES[:-1]}
    summary = (
        f"{len(ran)} of {len(rows)} networks run at budget 0.4, {compiled} of them as a program; {good} take "
        "at most 0.45 of the dense network's MACs. Time at budget 0.4, against "
        f"{_gain('PyTorch', gains['dense_ms'])}; {_gain('OpenVINO', gains['static_ms'])}; "
        f"{_gain('our own dense network', gains['own_ms'])}."
    )
    newest = max(
        (row["timed"] for row in ran if row["ms"]), key=[row["timed"] for row in ran].count, default=""
    )
    text = HEAD + "\n".join(_line(row, newest) for row in ran) + f"\n\n{summary}\n"
    if missing:
        text += f"\nNot run at the commits of these rows: {', '.join(missing)}.\n"
    sections = {
        "told": "Nothing to refine at budget 0.4",
        "refused": "Refused by `foveal.adapt`",
        "failed": "Failed after it",
    }
    for key, title in sections.items():
        lines = [f"| {row['name']} | {row[key]} |" for row in rows if row[key]]
        if lines:
            text += f"\n## {title}\n\n| network | why |\n|---|---|\n" + "\n".join(lines) + "\n"
    write_atomically(PAGE, text)


def _gain(name: str, gains: list[float]) -> str:
    """Say how many times faster networks run."""
    if not gains:
        return f"{name}: not measured"
    least, most = min(gains), max(gains)
    return (
        f"{name} ({len(gains)} networks): {median(gains):.1f} times less in the median, "
        f"{least:.1f} to {most:.1f}"
    )


def _line(row: dict[str, Any], newest: str) -> str:
    network, _, encoder = row["name"].partition("/")
    modules = ", ".join(f"`{name}`" for name in row["dense_modules"]) or "-"
    if len(row["dense_modules"]) > MANY:
        modules = f"{len(row['dense_modules'])} modules"
    share = f"{row['dense_share']:.0%}" if row["dense_modules"] else "-"
    runs = "program" if row["engine"] == "program" else f"layer by layer: {row['engine']}"
    mark = "*" if row["timed"] != newest else ""
    numbers = (
        "-" if row["difference"] is None else f"{row['difference']:.0e}",
        f"{row['macs']:.2f}",
        *(f"{row[key]:.0f}{mark}" if row.get(key) else "-" for key in TIMES),
    )
    return f"| {' | '.join((network, encoder or '-', modules, share, *numbers, runs))} |"


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
    write_page()


if __name__ == "__main__":
    main()
