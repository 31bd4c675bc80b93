"""Adaptive models as files: weights in safetensors, everything else in JSON beside them. Never pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, snapshot_download
from safetensors.torch import save as in_bytes
from torch import Tensor, nn

from foveal.adaptive.engine import describe_model
from foveal.adaptive.prepared import PreparedNetwork
from foveal.adaptive.spec import Specification
from foveal.calibration.profile import CalibrationProfile, find_profile
from foveal.calibration.tuned import TunedSettings, find_tuned
from foveal.hub.card import CheckpointError
from foveal.storage.atomic import replacing_all, write_atomically
from foveal.storage.finite import mask_buffers
from foveal.storage.reading import read_json, refusal, shorten
from foveal.storage.tensors import read_tensors

TAGS = ["foveal", "adaptive-inference", "semantic-segmentation"]
WEIGHTS, CONFIG, PAGE = "model.safetensors", "config.json", "README.md"
SMALL = "small"
"""Folder of the small network within that of the large one."""
DTYPES = "float32", "float16", "bfloat16", "float64"


def save(
    folder: Path,
    prepared: PreparedNetwork,
    spec: Specification,
    profile: CalibrationProfile | None,
    tuned: TunedSettings | None = None,
) -> None:
    """Write an adaptive model into a folder; weights keep their precision, a page that people changed stays.

    Raises:
        OSError: The folder cannot be written, or the disk is full; what was there is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {str(p.dtype).removeprefix("torch.") for p in prepared.network.parameters()}
    record = {**spec.as_dict(), "dtype": kinds.pop() if len(kinds) == 1 else None}
    with replacing_all([folder / WEIGHTS, folder / CONFIG]) as (weights, config):
        weights.write_bytes(in_bytes(_weights(prepared.network)))
        config.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, found in (("profile", profile), ("tuned", tuned)):
        if found is None:
            (folder / f"model.{name}.json").unlink(missing_ok=True)
        else:
            found.save(describe_model(prepared, spec, folder / WEIGHTS))
    write_page(folder, spec, profile)


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the state, tensors that share memory once; `_fill` knows the others."""
    state = network.state_dict()
    whole: dict[int, str] = {}
    for name, value in state.items():
        if _is_whole(value):
            whole.setdefault(_memory(value), name)
    kept = {name: whole.get(_memory(value), name) for name, value in state.items()}
    return {name: state[name].cpu().contiguous().clone() for name in state if kept[name] == name}


def load(folder: Path, network: nn.Module | None, trusted: bool) -> tuple[nn.Module, Specification]:
    """Read the network of an adaptive model, and what is known about it.

    Args:
        folder: Where `save` wrote them.
        network: The network, with any weights; made as the file says if None.
        trusted: Whether any function that the file names may be called to make it.

    Raises:
        CheckpointError: A file is missing or damaged, or the network is another one.
        ValueError: The file does not say how to make the network, or that is not possible here.
    """
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {missing[0]} is missing; give a folder of AdaptiveModel.save_pretrained"
        )
    record = read_json(folder / CONFIG, "adaptive model", CheckpointError)
    spec = Specification.from_dict(record, folder / CONFIG, CheckpointError)
    name = record.get("dtype")
    if name is not None and name not in DTYPES:
        said = f"dtype is {shorten(name, 20)}; known: {', '.join(DTYPES)}"
        raise CheckpointError(refusal(folder / CONFIG, "adaptive model", said))
    dtype = None if name is None else getattr(torch, name)
    if network is None and spec.source is None:
        raise ValueError(
            f"{folder}: the file has the weights of {spec.name} but not how to make the network; give "
            "from_pretrained(folder, network=net) with the network itself, or save it again after "
            'foveal.adapt(net, source="module:function", arguments={...})'
        )
    made = spec.source.make(trusted) if network is None and spec.source else network
    assert made is not None, "one of them is there"
    made = made if dtype is None else made.to(dtype)
    tensors, _ = read_tensors(folder / WEIGHTS, "weights", CheckpointError, mask_buffers(made))
    try:
        _fill(made, tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder / WEIGHTS}: damaged, or of another network than {type(made).__name__} "
            f"({' '.join(str(error).split())[:200]})"
        ) from None
    return made.eval(), spec


def _fill(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load weights; a tensor that shares its memory with one of the file need not be there.

    Raises:
        RuntimeError: They are of another network.
    """
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    state = network.state_dict()
    given = {_memory(state[name]) for name in tensors if name in state and _is_whole(state[name])}
    missing = [name for name in missing if _memory(state[name]) not in given]
    if missing or unexpected:
        raise RuntimeError(f"it lacks {missing[:3]} and has {unexpected[:3]} beyond them")


def _memory(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _is_whole(value: Tensor) -> bool:
    """Whether a tensor is all that is in its memory."""
    return value.numel() > 0 and value.nbytes == value.untyped_storage().nbytes()


def load_profile(folder: Path, prepared: PreparedNetwork, spec: Specification) -> CalibrationProfile | None:
    """Read what calibration found for a model; None if nothing was, or it is of other weights."""
    if not (folder / "model.profile.json").is_file():
        return None
    return find_profile(describe_model(prepared, spec, folder / WEIGHTS))


def load_tuned(folder: Path, prepared: PreparedNetwork, spec: Specification) -> TunedSettings | None:
    """Read what `foveal tune` found for a model; None if nothing was, or it is of other weights."""
    if not (folder / "model.tuned.json").is_file():
        return None
    return find_tuned(describe_model(prepared, spec, folder / WEIGHTS))


def write_page(folder: Path, spec: Specification, profile: CalibrationProfile | None) -> None:
    """Write the page of a model, unless people changed the one that is there.

    Raises:
        OSError: It cannot be written.
    """
    if _is_generated(folder / PAGE):
        write_atomically(folder / PAGE, str(ModelCard(card_text(spec, profile))))


def _is_generated(page: Path) -> bool:
    """Whether a page is as `card_text` wrote it, or is not there: nobody's words are lost with it."""
    if not page.exists():
        return True
    text, _, mark = page.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n\n")
    return mark == _mark(text)


def _mark(text: str) -> str:
    """Return the last line of a page: a comment by which one sees whether the text is as it was written."""
    digest = hashlib.sha256(text.strip().encode()).hexdigest()[:16]
    return f"<!-- written by foveal {digest}; kept as it is once it is changed -->"


def check_name(name: str | Path) -> None:
    """Refuse what is no folder and cannot be a repository.

    Raises:
        CheckpointError: It is neither.
    """
    text = str(name)
    if not Path(name).is_dir() and (Path(name).is_absolute() or text[0] == "." or text.count("/") != 1):
        raise CheckpointError(
            f"{text}: no such folder; give one of AdaptiveModel.save_pretrained, or a repository OWNER/NAME"
        )


def find_folder(name: str, options: dict[str, Any]) -> Path:
    """Return a folder, or download a repository into the cache of huggingface_hub."""
    if Path(name).is_dir():
        return Path(name)
    known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    return Path(snapshot_download(name, **{key: options[key] for key in known if key in options}))


def card_text(spec: Specification, profile: CalibrationProfile | None) -> str:
    """Write what a model is and how to use it, in Markdown."""
    shape, pre = spec.shape, spec.preprocess
    names = ", ".join(spec.classes[:20]) + (", ..." if len(spec.classes) > 20 else "")
    needs = ", network=net"
    if spec.source is not None:
        needs = "" if spec.source.is_known else ", trust_source=True"
    lines = [
        f"# {spec.name}",
        "",
        "A semantic segmentation network that computes closely only where it matters, with",
        "[Foveal](https://pypi.org/project/foveal/): one model, any budget at run time.",
        "",
        "```python",
        "import foveal",
        "",
        f'model = foveal.AdaptiveModel.from_pretrained("..."{needs})',
        "out = model(image, budget=0.4)        # [N, C, H, W] in 0..1, or bytes",
        "out.labels, out.confidence, out.work",
        "```",
        "",
        f"- Input: {shape.in_channels} channels, mean {list(pre.mean)}, std {list(pre.std)}, "
        f"scale {pre.scale:g}, {pre.channel_order}; sides padded to a multiple of {shape.multiple} px "
        f"({pre.pad}).",
        f"- Classes ({shape.classes}): {names}.",
        f"- Method {spec.method}, tile {spec.tile} px, first pass at level {spec.coarse_level}, "
        f"{spec.precision}{'' if spec.scale == 1 else f', images shrunk to {spec.scale:g} of their sides'}.",
        f"- Network: {spec.source.function if spec.source else 'to be given with network=net'}.",
    ]
    if profile is not None:
        lines += ["", f"Agreement with the dense network on {profile.images} images:", ""]
        lines += ["| method | budget | work | agreement |", "|---|---|---|---|"]
        lines += [f"| {r.method} | {r.budget:g} | {r.work:.3f} | {r.agreement:.1%} |" for r in profile.curve]
    data = ModelCardData(library_name="foveal", pipeline_tag="image-segmentation", tags=TAGS)
    text = str(ModelCard("\n".join(["---", data.to_yaml(), "---", "", *lines]))).strip()
    return f"{text}\n\n{_mark(text)}\n"
