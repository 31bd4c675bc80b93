"""Programs in 8 bits or bfloat16, from a program in single precision and images alone.

Every map between image and logits gets one scale and zero point for all levels: those that lose least on the
images that it is calibrated on. Weights have a scale per output. Logits, and what dense modules compute
besides their large products, stay in single precision. Needs NumPy, not PyTorch.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, section 2 (scales and zero points); Krishnamoorthi, "Quantizing deep convolutional
networks for efficient inference", arXiv:1806.08342, section 3 (a scale per output of the weights).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foveal.program.builder import Builder, NotCompiled, Tables
from foveal.program.ranges import observe
from foveal.program.run import Program
from foveal.program.spec import (
    AFFINE,
    BINS,
    CONVOLVE,
    DEPTHWISE,
    MAX_POOL,
    NUMBER_FIELDS,
    REPEAT,
    SLICE,
    SPREAD,
    TILED,
    WHOLE,
    MapSpec,
    StepSpec,
)
from foveal.storage.given import need

Array = np.ndarray[Any, Any]
F32, BF16, U8 = range(3)  # the widest first
RGB = 3
U8_WORD, BF16_WORD = 4, 2
"""Channels that a kernel takes at once; maps with others are read in a wider precision."""
MOST_PRODUCTS = 1 << 16
"""Products of bytes that a sum holds."""
IMAGE_WORD = 4
"""Images in reduced precision have a multiple of so many channels, the last ones 0: rows are whole words."""
TRIES = 4
"""How often more maps are left in bfloat16 where labels agree too little."""
LEAST_AGREEMENT = 0.98
"""Share of the labels that must stay."""


@dataclass(frozen=True)
class Scales:
    """How the maps of a program are written in 8 bits: q stands for scale * (q - zero).

    Attributes:
        steps: Names of the steps of the program that they belong to.
        scale: Per map.
        zero: Per map, 0 to 255.
        kept: Maps that stay in bfloat16.
        agreement: Share of the pixels of the calibration images that keep their label.
    """

    steps: tuple[str, ...]
    scale: tuple[float, ...]
    zero: tuple[int, ...]
    kept: tuple[int, ...]
    agreement: float


def find_scales(program: Program, images: Sequence[Any], least_agreement: float = LEAST_AGREEMENT) -> Scales:
    """Find the scales that lose least on images.

    Args:
        program: In single precision, as `compile_network` makes it.
        images: Batches of images [N, C, H, W] in 0..1, without labels.
        least_agreement: Share of the labels that must stay; maps that lose most are left in bfloat16 until
            they do, or half of them are.

    Raises:
        ValueError: It is no program, there are no images, or one is none.
        NotCompiled: A step has no kernel in this precision.
    """
    need(program, Program, "program", "what compile_network returns")
    if not hasattr(images, "__len__") or not len(images):
        given = (
            "there are no images" if hasattr(images, "__len__") else f"images is a {type(images).__name__}"
        )
        raise ValueError(f"{given}; give a list of some like those that will come")
    plain = split_prologues(program.tables)
    expected = [program.run(image).labels for image in images]
    ranges = observe(Program(plain), images)
    order = sorted(_maps(plain), key=lambda m: -ranges.loss[m])
    scale, zero = tuple(map(float, ranges.scale)), tuple(map(int, ranges.zero))
    found = Scales(program.tables.names, scale, zero, (), 0.0)
    for turn in range(TRIES):
        kept = tuple(order[: len(order) * turn // (2 * (TRIES - 1))])
        found = replace(found, kept=kept)
        found = replace(found, agreement=_agreement(in_int8(program, found), images, expected))
        if found.agreement >= least_agreement:
            break
    return found


def in_int8(program: Program, scales: Scales) -> Program:
    """Put a program into 8 bits.

    Raises:
        ValueError: The scales belong to another program.
        NotCompiled: A step has no kernel in this precision.
    """
    need(program, Program, "program", "what compile_network returns")
    need(scales, Scales, "scales", "what find_scales returns")
    plain = split_prologues(program.tables)
    if scales.steps != program.tables.names or len(scales.scale) != len(plain.maps):
        raise ValueError("the scales belong to another program; run foveal adapt again with --precision int8")
    return Program(reduced(plain, scales))


def in_bf16(program: Program) -> Program:
    """Put a program into bfloat16; nothing has to be measured.

    Raises:
        NotCompiled: A step has no kernel in this precision.
    """
    need(program, Program, "program", "what compile_network returns")
    return Program(reduced(split_prologues(program.tables), None))


def _agreement(program: Program, images: Sequence[Any], expected: Sequence[Array]) -> float:
    """Share of pixels with the same label."""
    same = [program.run(image).labels == labels for image, labels in zip(images, expected, strict=True)]
    return float(sum(s.sum() for s in same) / sum(s.size for s in same))


def _maps(tables: Tables) -> list[int]:
    """List the maps that may be in reduced precision: of tiles, and inputs of products in dense modules."""
    output = tables.head.output
    others = {step.input for step in tables.steps if step.kind != CONVOLVE}
    inputs = {
        step.out for step in tables.steps if step.kind == AFFINE and tables.maps[step.out].kind == WHOLE
    } - others
    return [k for k, m in enumerate(tables.maps) if (m.kind == TILED or k in inputs) and k != output]


def _numbers(tables: Tables, at: int, count: int) -> Array | None:
    return None if at < 0 else tables.numbers[at : at + count]


def _counts(tables: Tables, step: StepSpec) -> dict[str, int]:
    """How many floats every field of a step has."""
    given, out = tables.maps[step.input].channels, tables.maps[step.out].channels
    taps = step.rows * step.columns
    weight = taps * out * (given if step.kind == CONVOLVE else 1)
    return {
        "weight": weight,
        "bias": out,
        "residual_scale": out,
        "before_scale": given,
        "before_shift": given,
        "outside": given,
    }


class _Copy(Builder):
    """Copies the steps of tables, with changes."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.tables = tables
        self.maps = [MapSpec.from_buffer_copy(m) for m in tables.maps]

    def copy_step(self, k: int, **changes: Any) -> None:
        """Copy step `k`; `changes` replace fields, arrays among them those of numbers."""
        old = self.tables.steps[k]
        new = StepSpec.from_buffer_copy(old)
        counts = _counts(self.tables, old)
        for name in NUMBER_FIELDS:
            values = (
                changes.pop(name)
                if name in changes
                else _numbers(self.tables, getattr(old, name), counts[name])
            )
            setattr(new, name, self.add_numbers(values))
        for name, value in changes.items():
            setattr(new, name, value)
        self.steps.append(new)
        self.names.append(self.tables.names[k])

    def done(self) -> Tables:
        """Return the tables."""
        head = self.tables.head
        return self.finish(head.input, head.output, head.classes, head.colours or RGB, head.multiple or 1)


def split_prologues(tables: Tables) -> Tables:
    """Let what comes before a convolution be a step of its own, whose result can have a scale."""
    copy = _Copy(tables)
    for k, step in enumerate(tables.steps):
        source = tables.maps[step.input]
        if step.kind != CONVOLVE or step.before_scale < 0 or source.kind == BINS:
            copy.copy_step(k)
            continue
        changed = copy.add_like(step.input)
        scale, shift = (
            _numbers(tables, at, source.channels) for at in (step.before_scale, step.before_shift)
        )
        copy.add_step(
            f"{tables.names[k]}.before",
            AFFINE,
            step.input,
            changed,
            before_scale=copy.add_numbers(scale),
            before_shift=copy.add_numbers(shift),
            low=step.before_low,
            high=step.before_high,
        )
        copy.copy_step(k, input=changed, before_scale=None, before_shift=None)
    return copy.done()


def reduced(tables: Tables, scales: Scales | None) -> Tables:
    """Give maps their precision: 8 bits with their scale, bfloat16 without scales or for maps that are kept.

    Raises:
        NotCompiled: What reads the image is no convolution.
    """
    copy = _Copy(tables)
    image = tables.head.input
    for k in _maps(tables):
        m = copy.maps[k]
        # Channels of a dense module's map are joined from parts and may be no whole words of 8 bits.
        if scales is None or (k in scales.kept and k != image) or (m.kind == WHOLE and m.channels % 4):
            m.precision = BF16
        else:
            m.precision, m.scale, m.zero = U8, scales.scale[k], scales.zero[k]
    if scales is not None:
        copy.maps[image].scale, copy.maps[image].zero = 1 / 255, 0
    copy.maps[image].channels += -copy.maps[image].channels % IMAGE_WORD
    _settle(copy, tables)
    for k, step in enumerate(tables.steps):
        if step.input != image:
            copy.copy_step(k)
            continue
        if step.kind != CONVOLVE:
            raise NotCompiled(f"'{tables.names[k]}' reads the image and is no convolution")
        copy.copy_step(k, **_padded(tables, step))
    return copy.done()


def _settle(copy: _Copy, tables: Tables) -> None:
    """Raise the precision of maps until every step has a kernel for those that it reads and writes."""
    changed = True
    while changed:
        changed = any([_settle_step(copy, step) for step in tables.steps])


def _settle_step(copy: _Copy, step: StepSpec) -> bool:
    """Raise the precision of maps of one step where it has to be; say whether that was so."""
    given, out = copy.maps[step.input], copy.maps[step.out]
    more = [copy.maps[step.other]] if step.other >= 0 else []
    before = [(m.precision, m.scale, m.zero) for m in (given, out, *more)]
    if step.kind in (CONVOLVE, DEPTHWISE):
        products = step.rows * step.columns * given.channels
        words = given.channels % U8_WORD == 0 and (step.kind == DEPTHWISE or products <= MOST_PRODUCTS)
        if given.precision == U8 and not words:
            _raise(given, BF16)
        if given.precision == BF16 and given.channels % BF16_WORD:
            _raise(given, F32)
        for m in (out, *more) if given.precision == F32 else ():
            _raise(m, F32)
    elif step.kind in (MAX_POOL, REPEAT, SPREAD, SLICE):  # what comes out are samples of the input
        if out.precision < given.precision:
            _raise(given, out.precision)
        out.precision, out.scale, out.zero = given.precision, given.scale, given.zero
    return before != [(m.precision, m.scale, m.zero) for m in (given, out, *more)]


def _raise(m: MapSpec, precision: int) -> None:
    m.precision, m.scale, m.zero = precision, 1.0, 0


def _padded(tables: Tables, step: StepSpec) -> dict[str, Array | None]:
    """Give a convolution of images weights for the channels that are 0."""
    counts = _counts(tables, step)
    channels, out = tables.maps[step.input].channels, tables.maps[step.out].channels
    more = -channels % IMAGE_WORD
    weight, outside = (_numbers(tables, getattr(step, f), counts[f]) for f in ("weight", "outside"))
    assert weight is not None
    shaped = np.pad(weight.reshape(out, channels, -1), ((0, 0), (0, more), (0, 0)))
    return {"weight": shaped, "outside": None if outside is None else np.pad(outside, (0, more))}
