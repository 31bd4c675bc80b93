"""A trained network as a program file, which runs without PyTorch, in Python and in C."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from foveal.hub.card import Card
from foveal.hub.checkpoint import Model
from foveal.methods import CoarseToFineConfig
from foveal.program import Program, ProgramInfo, RunDefaults, compile_network
from foveal.program.quantise import find_scales, in_bf16, in_int8
from foveal.storage.given import need, need_path


def export_program(
    model: Model | nn.Module,
    path: str | Path,
    precision: str = "f32",
    images: Sequence[Any] = (),
    info: ProgramInfo | None = None,
    scale: float = 1.0,
) -> Program:
    """Compile a model and write it as one file.

    Args:
        model: A trained model, or a network from images [N, 3, H, W] in 0..1 to logits [N, K, h, w].
        path: File to write, whatever its suffix.
        precision: "f32", "bf16" or "int8".
        images: Batches [N, 3, H, W] in 0..1 that ranges are taken from, without labels; for int8.
        info: Names, colours and recommended settings; those of the model's card if absent.
        scale: Share of an image's sides that the network sees best, as `foveal tune` finds it: images are
            shrunk to it first. For a model; `info` of a network has its own.

    Returns:
        The program that was written.

    Raises:
        NotCompiled: An operation of the network has no step; the message says which.
        ValueError: The precision is none, there are no images for it, or `info` is of another network.
        RuntimeError: The C kernels are not available.
    """
    need_path(path, "path")
    need(precision, str, "precision", "f32, bf16 or int8")
    if precision not in ("f32", "bf16", "int8"):
        raise ValueError(f"precision is {precision!r}; give f32, bf16 or int8")
    if info is not None:
        need(info, ProgramInfo, "info", "a ProgramInfo")
    if isinstance(model, Model):
        network: nn.Module = model.network
        info = info or info_of(model.name, model.card, scale)
    else:
        network = model
    program = compile_network(network)
    if precision == "bf16":
        program = in_bf16(program)
    elif precision == "int8":
        program = in_int8(program, find_scales(program, images))
    program = Program(program.tables, info)
    program.save(path)
    return program


def info_of(name: str, card: Card, scale: float = 1.0) -> ProgramInfo:
    """Say who a program of a model is, from the model's name and card, and the scale that suits it."""
    isolated = CoarseToFineConfig.isolated_gain
    run = RunDefaults(card.tile, card.coarse_level, card.max_level, isolated_gain=isolated, scale=scale)
    return ProgramInfo(name, card.classes, card.palette, run)
