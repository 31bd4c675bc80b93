"""Trained networks as files: weights in safetensors, everything else in JSON beside them. Never pickle."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save as in_bytes
from torch import Tensor, nn

from foveal.cost import relative_macs
from foveal.decoders import Decoder
from foveal.exits import Exits
from foveal.hub.card import Card, CheckpointError
from foveal.hub.fingerprint import fingerprint
from foveal.methods import Resources
from foveal.models import SegmentationNetwork, create_model
from foveal.policies import AnswerGate, PolicyNet
from foveal.program import Program
from foveal.storage.atomic import replacing_all
from foveal.storage.names import suggestion
from foveal.storage.reading import shorten
from foveal.storage.tensors import read_tensors

PARTS = {"policy": "a policy network", "gate": "a gate", "exits": "exits", "decoder": "a decoder"}
"""What may belong to a network: the names of its weights start with it and a dot."""
BUNDLED = Path(__file__).parent / "weights"


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
        policy: The policy network that belongs to it.
        exits: Heads where it may be left, that belong to it.
        file: The file it comes from.
        compiled: What has been made of it; None before it is compiled.
        gate: What weighs its answer and that of a small network, trained for the two.
        decoder: What may answer in the place of its own decoder.
        small: A small network for the same classes, if it was given one.
    """

    name: str
    network: SegmentationNetwork
    card: Card
    policy: PolicyNet | None = None
    file: Path | None = None
    compiled: Compiled | None = field(default=None, repr=False, compare=False)
    gate: AnswerGate | None = field(default=None, kw_only=True)
    exits: Exits | None = field(default=None, kw_only=True)
    decoder: Decoder | None = field(default=None, kw_only=True)
    small: Model | None = field(default=None, repr=False, kw_only=True)

    @property
    def weights(self) -> str:
        """Fingerprint of its network, its exits and its decoder, if it has any: what was measured for all."""
        own = fingerprint(self.network)
        for part in (self.exits, self.decoder):
            if part is not None:
                own = hashlib.sha256(f"{own} {fingerprint(part)}".encode()).hexdigest()
        return own

    @property
    def resources(self) -> Resources:
        """What methods may use besides the network; a small network is the engine's."""
        return Resources(policy_network=self.policy, gate=self.gate, exits=self.exits, decoder=self.decoder)

    @property
    def parts(self) -> Parts:
        """What is stored with the network."""
        return Parts(self.policy, self.gate, self.exits, self.decoder)


def bundled() -> dict[str, Path]:
    """Models that come with the package."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.safetensors"))}


@dataclass(frozen=True)
class Parts:
    """What was trained with a network and is stored with it; None for what there is not.

    Attributes:
        policy: A policy network; the card has its arguments.
        gate: A gate between its answer and a small network's; the card has its arguments.
        exits: Heads where it may be left; the card has their shapes.
        decoder: What may answer in the place of its own decoder; the card has its shape.
    """

    policy: PolicyNet | None = None
    gate: AnswerGate | None = None
    exits: Exits | None = None
    decoder: Decoder | None = None

    @classmethod
    def of_card(cls, card: Card) -> Parts:
        """Make what a card tells of, with fresh weights."""
        return cls(
            PolicyNet(**card.policy).eval() if card.policy else None,
            AnswerGate(**card.gate).eval() if card.gate else None,
            Exits(card.exits, len(card.classes)).eval() if card.exits else None,
            Decoder(card.decoder, len(card.classes)).eval() if card.decoder else None,
        )

    @property
    def known(self) -> dict[str, nn.Module | None]:
        """All of them by name."""
        return {name: getattr(self, name) for name in PARTS}


def save_model(
    network: SegmentationNetwork,
    card: Card,
    path: str | Path,
    half: bool = False,
    parts: Parts | None = None,
) -> Path:
    """Write weights and card.

    Args:
        network: The network.
        card: What to know about it.
        path: File name; `.safetensors` and `.json` are put in the place of its suffix.
        half: Store the weights in half precision, all but those that are too large for it: half the file, and
            logits that differ by about a thousandth.
        parts: What else to store with it.

    Returns:
        The weights file.

    Raises:
        OSError: They cannot be written, or the disk is full; what was there is as it was.
    """
    path = Path(path).with_suffix(".safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = network.state_dict()
    for name, part in (parts or Parts()).known.items():
        if part is not None:
            tensors |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
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
    path = _find(str(name))
    if not path.with_suffix(".json").is_file():
        raise CheckpointError(f"{path}: its card {path.with_suffix('.json').name} is missing beside it")
    card = Card.read(path.with_suffix(".json"))
    stored, _ = read_tensors(path, "weights of a model", CheckpointError)
    network = create_model(card.network, len(card.classes))
    try:
        parts = Parts.of_card(card)
        state = {key: value.float() for key, value in stored.items()}
        held = {name: _taken(state, f"{name}.") for name in PARTS}
        missing, unexpected = network.load_state_dict(state, strict=False)
        for name, part in parts.known.items():
            if part is not None:
                found = part.load_state_dict(held[name], strict=False)
                missing += [f"{name}.{key}" for key in found[0]]
                unexpected += [f"{name}.{key}" for key in found[1]]
        policy = parts.policy
        if policy is not None:
            policy.share = relative_macs(policy, network, (math.lcm(2 * policy.block, 64),) * 2)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged, or of another network ({shorten(error)})") from None
    for name, part in parts.known.items():
        _check_part(PARTS[name], bool(held[name]), part is not None, path)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: does not fit {card.network}; missing {missing[:3]}, unexpected {unexpected[:3]}"
        )
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    held_parts = {"gate": parts.gate, "exits": parts.exits, "decoder": parts.decoder}
    return Model(path.stem, network, card, policy, path, **held_parts)  # type: ignore[arg-type]


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
