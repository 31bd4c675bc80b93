"""What runs a trained network: its compiled program in a precision, or its layers one by one in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from foveal.calibration.profile import find_profile, load_profile
from foveal.cost import count_macs
from foveal.fusion import CannotFuse, fuse
from foveal.fusion.graph import separate_modules
from foveal.hub.checkpoint import Compiled, Model
from foveal.methods import (
    METHODS,
    AdaptiveSegmenter,
    CompiledFrames,
    CompiledMethod,
    Dense,
    MethodConfig,
    Resources,
)
from foveal.methods.compiled import PlansOnce
from foveal.methods.compiled_stages import CompiledStages, RunsInStages
from foveal.methods.frames import FrameSegmenter
from foveal.methods.padding import PaddedMethod, PaddedNetwork, device_of
from foveal.methods.scaling import ScaledMethod
from foveal.program import DenseRun, NotCompiled, Program, ReuseRun
from foveal.program.compile import compile_fused
from foveal.program.quantise import LEAST_AGREEMENT, Scales, find_scales, in_bf16, in_int8
from foveal.storage.names import find

Precision = Literal["f32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
CALIBRATED = 24
"""Images that the ranges of an int8 program are taken from."""


@dataclass(frozen=True)
class Engine:
    """Makes methods that run a network.

    Attributes:
        model: The trained network.
        network: The same with its layers joined, for what the program does not have.
        program: The compiled network; None if there is none.
        precision: What the program computes in.
        scales: How the program is written in 8 bits; None in another precision.
        why_not: Why there is no program, in a sentence; empty with one.
        small: What runs the small network that the model was given; None if it was given none.
        stages: Programs of networks in stages, made when methods first ask for them.
    """

    model: Model = field(repr=False)
    network: nn.Module = field(repr=False)
    program: Program | None = field(default=None, repr=False)
    precision: Precision = "f32"
    scales: Scales | None = field(default=None, repr=False)
    why_not: str = ""
    small: Engine | None = field(default=None, repr=False)
    stages: dict[tuple[object, ...], CompiledStages | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    def make(
        self, method: str, config: MethodConfig, resources: Resources | None = None
    ) -> AdaptiveSegmenter:
        """Make a method, compiled where a program has it.

        Raises:
            ValueError: There is no method of that name, the config does not fit, or a precision other than
                f32 is asked for a method that programs do not have.
        """
        if config.scale < 1:
            within = partial(self.make, method, resources=resources)
            return ScaledMethod(config, within, self.dense()).eval()
        kind, given = find(method, METHODS, "method"), self._completed(resources)
        made = kind.from_config(self.network, config, given).eval()
        settings = config.program_run()
        if self.program is not None and isinstance(made, FrameSegmenter):
            decides = settings if isinstance(settings, ReuseRun) else None
            made = CompiledFrames(made, self.program, decides).eval()
        elif self.program is not None and (settings is not None or isinstance(made, PlansOnce)):
            made = CompiledMethod(made, self.program, settings).eval()
        elif self.program is not None and self.precision == "f32" and isinstance(made, RunsInStages):
            made.compiled = self._stages_of(made)
        elif self.program is not None and self.precision != "f32":
            raise ValueError(
                f"method {method} with {config.title} has no compiled form, so no {self.precision}; leave "
                "--precision out, or give another method or policy"
            )
        return self._for_any_image(made, config.reduced_by, config.whole("tile", 1))

    def _stages_of(self, method: RunsInStages) -> CompiledStages | None:
        """Return the stages of a method as parts of a program, compiled once for all settings; or None."""
        key = type(method), *method.compiled_from
        if key not in self.stages:
            with suppress(NotCompiled):  # then it runs layer by layer
                count_macs(method.compile)  # a count of its own: methods are made while images are counted
            self.stages[key] = method.compiled
        return self.stages[key]

    def _completed(self, resources: Resources | None) -> Resources:
        """Add the small network, compiled where it can be, and the parts of the model."""
        given = resources or Resources()
        small = self.small.dense().dense() if given.small is None and self.small else given.small
        return replace(given, small=small, parts={**self.model.parts, **given.parts})

    def dense(self) -> AdaptiveSegmenter:
        """Make the dense network."""
        made: AdaptiveSegmenter = Dense(self.network).eval()
        if self.program is not None:
            made = CompiledMethod(made, self.program, DenseRun()).eval()
        return self._for_any_image(made)

    @property
    def made(self) -> Compiled:
        """What was made of the network; of an engine in f32."""
        return Compiled(self.network, self.program, self.why_not)

    @property
    def multiple(self) -> int:
        """What sides of images must be multiples of [px]; the methods that are made pad them."""
        return int(getattr(self.model.network, "multiple", 1))

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return device_of(self.model.network)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(getattr(self.model.network, "in_channels", 3))

    def sent(self, image: Tensor) -> Tensor:
        """Return images [N, C, H, W] on the network's device, padded to sides that it takes."""
        network, moved = self.model.network, image.to(self.device)
        return network.pad(moved, self.multiple) if isinstance(network, PaddedNetwork) else moved

    def _for_any_image(self, method: AdaptiveSegmenter, level: int = 0, tile: int = 1) -> AdaptiveSegmenter:
        """Let a method take images of any size and device; at `level` whole images are reduced."""
        if self.multiple == 1 and self.device.type == "cpu":
            return method
        multiple = self.multiple << level if self.multiple > 1 else 1
        return PaddedMethod(method, self.model.network, multiple, tile).eval()

    def in_precision(self, precision: str, scales: Scales | None = None) -> Engine:
        """Return what runs the same network in bf16 or int8, from its program in f32.

        Args:
            precision: "bf16" or "int8".
            scales: How int8 is written; those of the model's profile if absent.

        Raises:
            ValueError: There is no program, or none in this precision, or no scales were found yet.
        """
        kind: Precision = "bf16" if precision == "bf16" else "int8"
        if self.program is None:
            raise ValueError(f"{self.model.name} has no program in {kind}: {self.why_not}")
        scales = None if kind == "bf16" else scales or _scales(self.model)
        try:
            program = in_bf16(self.program) if scales is None else in_int8(self.program, scales)
        except (NotCompiled, RuntimeError) as error:
            raise ValueError(f"{self.model.name} has no program in {kind}: {error}") from None
        small = None if self.small is None else self.small.as_well_in(kind)
        return replace(self, program=program, precision=kind, scales=scales, small=small)

    def as_well_in(self, precision: Precision) -> Engine:
        """Return what runs a small network beside a large one in a precision.

        That is int8 where it was adapted for it, else bf16; in f32 where it has no program.
        """
        if self.program is None:
            return self
        profile = find_profile(self.model) if precision == "int8" else None
        ready = profile is not None and profile.scales is not None
        return self.in_precision("int8" if ready else "bf16")

    @property
    def warning(self) -> str:
        """What to tell a user; empty if there is nothing to tell."""
        if self.program:
            return ""
        return f"{self.model.name} runs layer by layer in PyTorch; it has no compiled program: {self.why_not}"

    def __str__(self) -> str:
        """Say what runs, and why it is no program."""
        if self.program:
            return f"a compiled program in {self.precision}"
        return f"layer by layer in PyTorch: {self.why_not}"

    @property
    def name(self) -> str:
        """What runs, in words: "program int8", or "modules"."""
        return f"program {self.precision}" if self.program else "modules"


def find_engine(model: Model, precision: str = "f32", scales: Scales | None = None) -> Engine:
    """Compile a model's network, unless it has been compiled before.

    Args:
        model: A network; for int8 without scales one that `foveal adapt --precision int8` has seen images
            with.
        precision: f32, bf16 or int8.
        scales: How int8 is written, from `int8_scales`; those of the model's profile if absent.

    Raises:
        ValueError: There is no such precision, or the network cannot be compiled and another than f32 is
            asked for, or no scales for int8 were found yet.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision}; give one of {', '.join(PRECISIONS)}")
    made = model.compiled or _compile(model.network)
    small = None if model.small is None else find_engine(model.small)
    plain = Engine(model, made.network, made.program, why_not=made.why_not, small=small)
    return plain if precision == "f32" else plain.in_precision(precision, scales)


def _compile(whole: nn.Module) -> Compiled:
    """Join the layers of a network, and compile it."""
    inner: nn.Module = whole.prepared if isinstance(whole, PaddedNetwork) else whole
    fused, program, why_not = inner, None, _obstacle(inner)
    try:
        multiple = int(getattr(whole, "multiple", 1))
        fused = fuse(inner, multiple=multiple)
        if not why_not:
            across = fuse(inner, multiple=multiple, separate=()) if separate_modules(inner) else fused
            program = compile_fused(across, multiple=multiple)
    except CannotFuse as error:
        why_not = why_not or str(error)
    except Exception as error:  # a graph of any network may hold anything
        why_not = " ".join(str(error).split()) or type(error).__name__
    joined = whole.around(fused) if isinstance(whole, PaddedNetwork) else fused
    return Compiled(joined.eval(), program, why_not)


def _obstacle(network: nn.Module) -> str:
    """Say why there is no program, whatever the network's layers are; empty if there may be one."""
    like = next(iter(network.parameters()), torch.empty(0))
    if like.device.type != "cpu":
        return f"programs run on the CPU, and the network is on {like.device}"
    if like.dtype != torch.float32:
        kind = str(like.dtype).removeprefix("torch.")
        return f'programs are made from float32 weights, and these are {kind}; use precision="bf16" instead'
    return ""


def int8_scales(engine: Engine, images: Sequence[Tensor], least_agreement: float = LEAST_AGREEMENT) -> Scales:
    """Find how a program is written in 8 bits, from at most `CALIBRATED` images, evenly spaced.

    Args:
        engine: What runs the network in f32.
        images: Images [C, H, W] in 0..1 like those that will come, read when they are asked for.
        least_agreement: Share of the labels that must stay; maps are left in bfloat16 for it. 0 where labels
            mean nothing, and only time counts.

    Raises:
        ValueError: There is no program, or one of its steps has no 8-bit kernel.
    """
    name, count = engine.model.name, min(CALIBRATED, len(images))
    if engine.program is None:
        raise ValueError(f"{name} has no program in int8: {engine.why_not}")
    chosen = [
        engine.sent(images[k * len(images) // count][None]).cpu().contiguous().numpy() for k in range(count)
    ]
    try:
        return find_scales(engine.program, chosen, least_agreement)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{name} has no program in int8: {error}") from None


def _scales(model: Model) -> Scales:
    """Look up what `foveal adapt --precision int8` found.

    Raises:
        ValueError: Nothing was found yet.
    """
    scales = load_profile(model).scales
    if scales is None:
        raise ValueError(
            f"{model.name} has been adapted without --precision int8; run foveal adapt "
            f"{model.file or model.name} --images FOLDER --precision int8 (no labels needed)"
        )
    return scales
