"""Files of trained networks that are changed and read: weights, cards and their parts, checkpoints, programs.

safetensors carry no checksum: changed numbers are other numbers, and are read a second time by a few lines
that know nothing of the reader. What `torch.save` writes carries some: numbers are those of the file that was
not changed. A program is numbers too: one that is accepted runs within its memory, which the process of its
own shows, and gives labels that are classes, or says that there are none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from targets import LONGEST_SENTENCE, Target, as_json, says_json, says_tensors
from torch import Tensor, nn

import foveal
from commands import CLASSES, small_model
from foreign import UNet
from foveal.adaptive.opening import load_weights
from foveal.calibration.export import export_program
from foveal.data.augmentation import Augment
from foveal.data.batches import Batches
from foveal.data.dataset import default_palette
from foveal.decoders import Decoder, DecoderConfig
from foveal.exits import ExitConfig, Exits
from foveal.gates import Gates, GatesConfig
from foveal.gates.gates import GateConfig
from foveal.hub.card import Card
from foveal.hub.checkpoint import load_model, save_model
from foveal.kernels import build
from foveal.methods import Dense, VideoCoarseToFine, VideoCoarseToFineConfig
from foveal.methods.parts import PARTS
from foveal.models.weights import read_state
from foveal.policies import AnswerGate, PolicyNet
from foveal.program import ProgramInfo, load_program
from foveal.routes import Router
from foveal.storage.tensors import read_tensors
from foveal.tiles.video import VideoMemory
from foveal.training.loop import CHECKPOINT, Schedule, resumed_step, train
from samples import Scenes, headless, nano


def card(folder: Path) -> Target:
    path = small_model(folder).with_suffix(".json")
    return Target(path, lambda: asdict(Card.read(path)), says_json)


def model(folder: Path) -> Target:
    path = small_model(folder)
    return Target(path, lambda: load_model(path).network.state_dict(), says_tensors)


def every_part() -> dict[str, nn.Module]:
    """Make a small part of every kind that there is."""
    classes = len(CLASSES)
    decoder = DecoderConfig("points", "fine", "coarse", 8, 8, 2, width=8, coarse_width=8)
    made = {
        "policy": PolicyNet(64, 4, 3),
        "gate": AnswerGate(classes, 4),
        "exits": Exits([ExitConfig("first", 8, 8), ExitConfig("second", 16, 8, 1, 2, "aspp")], classes),
        "decoder": Decoder(decoder, classes),
        "router": Router(4, 4),
        "gates": Gates(GatesConfig((GateConfig("one", 8), GateConfig("two", 16, 2)))),
    }
    assert made.keys() == PARTS.keys()
    return made


def with_parts(folder: Path) -> Path:
    card = Card("swiftnet_nano", CLASSES, default_palette(len(CLASSES)))
    return save_model(nano(len(CLASSES)), card, folder / "parts", parts=every_part())


def parts(folder: Path) -> Target:
    path = with_parts(folder)

    def read() -> dict[str, Tensor]:
        found = load_model(path)
        state = dict(found.network.state_dict())
        for name, part in found.parts.items():
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        return state

    return Target(path, read, says_tensors)


def described_parts(folder: Path) -> Target:
    """Change the card of a model with parts, by which they are made before their weights are compared."""
    path = with_parts(folder)
    return Target(path.with_suffix(".json"), lambda: asdict(load_model(path).card), says_json)


def saved(folder: Path) -> Target:
    foveal.adapt(UNet()).save_pretrained(folder)

    def read() -> dict[str, Any]:
        made = foveal.AdaptiveModel.from_pretrained(folder, network=UNet())
        return made.spec.as_dict() | {"dtype": as_json((folder / "config.json").read_bytes()).get("dtype")}

    return Target(folder / "config.json", read, says_json)


def saved_weights(folder: Path) -> Target:
    foveal.adapt(UNet()).save_pretrained(folder)

    def read() -> dict[str, Tensor]:
        network = UNet()
        foveal.AdaptiveModel.from_pretrained(folder, network=network)
        return network.state_dict()

    return Target(folder / "model.safetensors", read, says_tensors)


def state_dict(folder: Path, load: Callable[[Path], dict[str, Tensor]]) -> Target:
    path, state = folder / "weights.pth", UNet().state_dict()
    torch.save({"state_dict": state}, path)

    def same_tensors(found: dict[str, Tensor], data: bytes) -> None:
        assert found.keys() <= state.keys()
        for name, value in found.items():
            assert torch.equal(value, state[name]), name

    return Target(path, lambda: load(path), same_tensors)


def loaded(path: Path) -> dict[str, Tensor]:
    network = UNet()
    load_weights(network, path)
    return network.state_dict()


def tensors(folder: Path) -> Target:
    path = folder / "a.safetensors"
    path.write_bytes(save({"a": torch.ones(3, 4), "b": torch.ones(2, dtype=torch.float16)}, {"state": "{}"}))
    return Target(path, lambda: read_tensors(path, "weights")[0], says_tensors)


def step(folder: Path) -> Target:
    path = folder / CHECKPOINT
    save_file({"a": torch.ones(3)}, path, {"state": json.dumps({"step": 3})})

    def says_step(found: int, data: bytes) -> None:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert found == json.loads(header["__metadata__"]["state"])["step"]

    return Target(path, lambda: resumed_step(folder), says_step)


def resumed(folder: Path) -> Target:
    """Go on from a changed checkpoint, by a step."""
    batches, method = Batches(Scenes(1), Augment((16, 16)), 1, seed=0), Dense(headless(len(Scenes.classes)))
    first, more = (Schedule(steps, 1e-2, average=0.5, save_every=9) for steps in (9, 10))
    train(method, batches, first, folder)

    def is_finite(found: nn.Module, data: bytes) -> None:
        assert all(value.isfinite().all() for value in found.state_dict().values())

    return Target(folder / CHECKPOINT, lambda: train(method, batches, more, folder), is_finite)


def memory(folder: Path) -> Target:
    """Change what is known of a video; a method goes on from what is accepted."""
    config = VideoCoarseToFineConfig(tile=16, coarse_level=1, first_budget=1.0)
    path, made = folder / "memory.safetensors", VideoCoarseToFine(headless(), config).eval()
    frame = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        made(frame).memory.save(path)

    @torch.no_grad()
    def goes_on(found: VideoMemory, data: bytes) -> None:
        try:
            labels = made(frame.flip(3), found).labels
        except ValueError as error:
            assert len(str(error)) < LONGEST_SENTENCE
            return
        assert labels.shape == (1, 48, 64) and int(labels.max()) < 5

    return Target(path, lambda: VideoMemory.load(path), goes_on)


def program(folder: Path, precision: str) -> Target:
    if not build.available():
        pytest.skip("no compiler")
    path = folder / "tiny.foveal"
    image = np.random.default_rng(0).random((1, 3, 48, 64), np.float32)
    info = ProgramInfo("tiny", tuple("abcde"))
    export_program(nano(), path, precision, [torch.from_numpy(image)], info=info)

    def gives_classes(found: Any, data: bytes) -> None:
        try:
            labels = found.run(image[:, :1].repeat(found.channels, 1), threads=1).labels
        except ValueError as error:
            assert len(str(error)) < LONGEST_SENTENCE
            return
        assert labels.shape == (1, 48, 64) and labels.max() < found.classes

    return Target(path, lambda: load_program(path), gives_classes)


KINDS: dict[str, Callable[[Path], Target]] = {
    "card": card, "model": model, "parts": parts, "described parts": described_parts,
    "saved model": saved, "saved weights": saved_weights, "tensors": tensors,
    "pretrained weights": partial(state_dict, load=read_state),
    "state dict": partial(state_dict, load=loaded), "step": step, "checkpoint": resumed,
    "memory of a video": memory,
    "program": partial(program, precision="f32"), "program, bf16": partial(program, precision="bf16"),
    "program, int8": partial(program, precision="int8"),
}  # fmt: skip
