"""A trained network as a program file, which runs without PyTorch, in Python and in C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from foveal.calibration.engine import PRECISIONS, find_engine
from foveal.calibration.profile import CalibrationProfile, find_profile
from foveal.hub.checkpoint import Model
from foveal.methods import CoarseToFineConfig
from foveal.program import NotCompiled, Program, ProgramInfo, RunDefaults, compile_network
from foveal.program.quantise import Scales, find_scales, in_bf16, in_int8
from foveal.storage.given import need, need_path


def export_program(
    model: Model | nn.Module,
    path: str | Path,
    precision: str = "f32",
    images: Sequence[Any] = (),
    info: ProgramInfo | None = None,
    scale: float = 1.0,
) -> Program:
    """Compile a model and write it as one file. An adaptive model has a method of its own, `export`.

    Args:
        model: A trained model, or a network from images [N, C, H, W] in 0..1 to logits [N, K, h, w].
        path: File to write, whatever its suffix.
        precision: "f32", "bf16" or "int8".
        images: Batches [N, C, H, W] in 0..1 that the ranges of int8 are taken from, without labels. Those
            that `foveal adapt --precision int8` found for a model if there are none.
        info: Names, colours and recommended settings; those of the model's card, and what `foveal adapt`
            found, if absent.
        scale: Share of an image's sides that the network sees best, as `foveal tune` finds it: images are
            shrunk to it first. For a model; `info` of a network has its own.

    Returns:
        The program that was written.

    Raises:
        NotCompiled: An operation of the network has no step; the message says which.
        ValueError: The precision is none, there is nothing to take its ranges from, or `info` is of another
            network.
        RuntimeError: The C kernels are not available.
        OSError: The file cannot be written, or the disk is full; an older one is as it was.
    """
    need_path(path, "path")
    need(precision, str, "precision", "f32, bf16 or int8")
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; give f32, bf16 or int8")
    if info is not None:
        need(info, ProgramInfo, "info", "a ProgramInfo")
    profile = None
    if isinstance(model, Model):
        profile = find_profile(model)
        info = info or info_of(model, profile, scale)
        program = program_of(model)
    else:
        need(model, nn.Module, "model", "a torch.nn.Module, or what foveal.load_model returns")
        program = compile_network(model, multiple=int(getattr(model, "multiple", 1)))
    if precision == "bf16":
        program = in_bf16(program)
    elif precision == "int8":
        program = in_int8(program, _scales(program, images, profile))
    return write_program(program, path, info)


def program_of(model: Model) -> Program:
    """Return a model's program in f32.

    Raises:
        NotCompiled: It has none; the message says why.
    """
    engine = find_engine(model)
    if engine.program is None:
        raise NotCompiled(f"{model.name} has no program to export: {engine.why_not}")
    return engine.program


def write_program(program: Program, path: str | Path, info: ProgramInfo | None) -> Program:
    """Write a program, and who it is, as one file.

    Raises:
        ValueError: `info` is of another network.
        OSError: The file cannot be written, or the disk is full; an older one is as it was.
    """
    named = Program(program.tables, info)
    named.save(path)
    return named


def info_of(model: Model, profile: CalibrationProfile | None = None, scale: float = 1.0) -> ProgramInfo:
    """Say who a program of a model is: from its card, what was calibrated, and the scale that suits it."""
    card = model.card
    config = CoarseToFineConfig(tile=card.tile, coarse_level=card.coarse_level)
    levels = card.max_level
    return ProgramInfo(model.name, card.classes, card.palette, recommended(config, levels, profile, scale))


def recommended(
    config: CoarseToFineConfig, max_level: int, profile: CalibrationProfile | None, scale: float
) -> RunDefaults:
    """Return the settings that a program file recommends.

    Args:
        config: Settings of coarse to fine without a calibration.
        max_level: Coarsest level that may occur in SegBlocks.
        profile: What calibration found; None if there was none.
        scale: Share of the image's sides that images are shrunk to first.
    """
    if profile is not None:
        config = replace(config, **profile.settings(1.0, config.coarse_level))  # type: ignore[arg-type]
    run = config.program_run()
    assert run is not None, "scores that go by uncertainty are those of programs"
    return RunDefaults(
        run.tile,
        run.coarse_level,
        max_level,
        coarse_to_fine_score=run.score,
        level_gain=run.level_gain,
        logit_blend=run.logit_blend,
        isolated_gain=run.isolated_gain,
        direct=run.direct,
        scale=scale,
    )


def _scales(program: Program, images: Sequence[Any], profile: CalibrationProfile | None) -> Scales:
    """Find how a program is written in 8 bits, on images or as it was found before."""
    known = None if profile is None else profile.scales
    if known is not None and hasattr(images, "__len__") and not len(images):
        return known
    return find_scales(program, images)
