"""Trained networks as files: weights in safetensors, everything else in JSON beside them. Never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save as in_bytes
from torch import Tensor, nn

from foveal.cost import count_macs
from foveal.hub.card import Card, CheckpointError
from foveal.hub.fingerprint import fingerprint
from foveal.methods import Resources
from foveal.methods.parts import PARTS, describe_parts, make_parts
from foveal.models import SegmentationNetwork, create_model
from foveal.policies import PolicyNet
from foveal.program import Program
from foveal.storage.atomic import replacing_all
from foveal.storage.given import need, need_path
from foveal.storage.names import suggestion
from foveal.storage.reading import shorten
from foveal.storage.tensors import read_tensors

M = TypeVar("M", bound=nn.Module)
BUNDLED = Path(__file__).parent / "weights"
COUNTED = 256
"""Side of the image that a network's MACs are counted on [px]."""


@dataclass(frozen=True)
class Compiled:
    """What was made of a network.

    Attributes:
        network: The network with its layers joined.
        program: Its program in single precision; None if there is none.
        why_not: Why there is none, in a sentence.
    """

    network: nn.Module
    program: Program | None
    why_not: str


@dataclass(frozen=True)
class Model:
    """A trained network, and what belongs to it.

    Attributes:
        name: Its name.
        network: The network.
        card: What to know about it.
        file: The file it comes from.
        compiled: What has been made of it; None before it is compiled.
        parts: What was trained and is stored with it, by name of its kind (`methods/parts.py`).
        small: A small network for the same classes, if it was given one.
    """

    name: str
    network: SegmentationNetwork
    card: Card
    file: Path | None = None
    compiled: Compiled | None = field(default=None, repr=False, compare=False)
    parts: Mapping[str, nn.Module] = field(default_factory=dict, repr=False, kw_only=True)
    small: Model | None = field(default=None, repr=False, kw_only=True)

    @property
    def weights(self) -> str:
        """Fingerprint of its network and of what was trained with it: what was measured holds for them."""
        own = fingerprint(self.network)
        if not self.parts:
            return own
        all_of_them = " ".join([own, *(fingerprint(part) for part in self.parts.values())])
        return hashlib.sha256(all_of_them.encode()).hexdigest()

    @property
    def resources(self) -> Resources:
        """What methods may use besides the network; a small network is the engine's."""
        return Resources(self.parts)

    def part(self, kind: type[M]) -> M | None:
        """Return what of a kind was trained with it; None if nothing was."""
        return self.resources.part(kind)


def bundled() -> dict[str, Path]:
    """Models that come with the package."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.safetensors"))}


def save_model(
    network: SegmentationNetwork,
    card: Card,
    path: str | Path,
    half: bool = False,
    parts: Mapping[str, nn.Module] | None = None,
) -> Path:
    """Write weights and card.

    Args:
        network: The network.
        card: What to know about it; what it says of parts is written anew.
        path: File name; `.safetensors` and `.json` are put in the place of its suffix.
        half: Store the weights in half precision, all but those that are too large for it: half the file, and
            logits that differ by about a thousandth.
        parts: What else to store with it.

    Returns:
        The weights file.

    Raises:
        OSError: They cannot be written, or the disk is full; what was there is as it was.
    """
    need(network, nn.Module, "network", "a torch.nn.Module")
    need(card, Card, "card", "its Card, as foveal.load_model(name).card")
    need_path(path, "path")
    path = Path(path).with_suffix(".safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = network.state_dict()
    for name, part in (parts or {}).items():
        tensors |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    card = replace(card, parts=describe_parts(parts or {}))
    state = {
        key: (_halved(value) if half else value).cpu().contiguous()
        for key, value in tensors.items()
        if not key.endswith("num_batches_tracked")
    }
    with replacing_all([path, path.with_suffix(".json")]) as (weights, facts):
        weights.write_bytes(in_bytes(state))
        facts.write_text(json.dumps(asdict(card), indent=1) + "\n")
    return path


def load_model(name: str | Path) -> Model:
    """Load a bundled model by name, or one from a file or a run's folder.

    Raises:
        CheckpointError: It does not exist, is damaged, or does not fit its network.
    """
    need_path(name, "name", "a bundled name, such as camvid_rn18, a file or the folder of a run")
    path = _find(str(name))
    if not path.with_suffix(".json").is_file():
        raise CheckpointError(f"{path}: its card {path.with_suffix('.json').name} is missing beside it")
    card = Card.read(path.with_suffix(".json"))
    stored, _ = read_tensors(path, "weights of a model", CheckpointError)
    network = create_model(card.network, len(card.classes))
    try:
        parts = make_parts(card.parts, len(card.classes))
        state = {key: value.float() for key, value in stored.items()}
        held = {name: _taken(state, f"{name}.") for name in PARTS}
        missing, unexpected = network.load_state_dict(state, strict=False)
        for name, part in parts.items():
            found = part.load_state_dict(held[name], strict=False)
            missing += [f"{name}.{key}" for key in found[0]]
            unexpected += [f"{name}.{key}" for key in found[1]]
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged, or of another network ({shorten(error)})") from None
    for name, kind in PARTS.items():
        _check_part(kind.words, bool(held[name]), name in parts, path)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: does not fit {card.network}; missing {missing[:3]}, unexpected {unexpected[:3]}"
        )
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    policy = Resources(parts).part(PolicyNet)
    if policy is not None:
        policy.share = _share(policy, network)
    return Model(path.stem, network, card, path, parts=parts)


def _share(policy: PolicyNet, network: nn.Module) -> float:
    """Return the MACs of a policy network as a share of the network's; both are the same for every block."""
    image = torch.zeros(1, 3, COUNTED, COUNTED)
    whole = count_macs(lambda: network(image)).total / COUNTED**2
    return policy.macs / policy.block**2 / max(1.0, whole)


def _taken(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take the tensors out whose names start with a prefix; return them without it."""
    return {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}


def _check_part(what: str, held: bool, told: bool, path: Path) -> None:
    """Refuse a part that is on the card or in the file, but not in both."""
    if held != told:
        where = ("holds", "lacks") if held else ("lacks", "has")
        raise CheckpointError(
            f"{path}: the file {where[0]} the weights of {what} that its card {where[1]}; give the "
            "two files that were saved together"
        )


def _halved(value: Tensor) -> Tensor:
    half = value.half()
    return half if value.is_floating_point() and bool(half.isfinite().all()) else value


def _find(name: str) -> Path:
    known = bundled()
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_dir() and (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    if path.suffix == ".safetensors" and path.is_file():
        return path
    raise CheckpointError(
        f"no model '{name}'; {suggestion(name, known)}bundled: "
        f"{', '.join(known) or 'none'}; or give a .safetensors file, the folder of a run or of "
        "AdaptiveModel.save_pretrained, or module:function"
    )
