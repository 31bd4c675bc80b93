"""Any network as an adaptive model: a module from images to labels that takes a budget with every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from foveal.adaptive.calibrating import PreparedImages, Progress, calibrate
from foveal.adaptive.engine import build_engine, describe_model, stamp_of
from foveal.adaptive.images import batch_of, is_one, read_wanted
from foveal.adaptive.prepared import PreparedNetwork
from foveal.adaptive.request import Answerer, Request
from foveal.adaptive.result import AdaptiveResult, TypedCall, levels_of, nothing_wanted
from foveal.adaptive.saving import Saved
from foveal.adaptive.spec import Specification
from foveal.calibration.engine import Engine, Precision
from foveal.calibration.export import info_of, program_of, write_program
from foveal.calibration.latency import on_tiles
from foveal.calibration.profile import CalibrationProfile
from foveal.calibration.tuned import TunedSettings
from foveal.geometry.mask import read_mask
from foveal.geometry.plan import SKIP
from foveal.hub.checkpoint import Compiled, Model
from foveal.methods import Prediction
from foveal.methods.base import refuse_tracing
from foveal.models.adapters import unsaid_images
from foveal.program import Program
from foveal.storage.given import need, need_path
from foveal.storage.labels import VOID

if TYPE_CHECKING:
    from foveal.adaptive.images import Images, OneImage, OneMask


class AdaptiveModel(TypedCall, Saved):
    """A segmentation network that takes a budget with every call. `foveal.adapt` makes one.

    Args:
        network: Module from images [N, C, H, W] to logits, or to something that holds them.
        spec: What is known about it.
        profile: What calibration found.
        small: A small network for the same classes, as an adaptive model of its own.

    Attributes:
        prepared: The network with its preprocessing, as an ordinary module.
        spec: What is known about it.
        profile: What calibration found; None before `calibrate`.
        tuned: What `foveal tune` found on labelled images; None before.
        small: The small network; None if it was given none.
    """

    small: AdaptiveModel | None

    def __init__(
        self,
        network: nn.Module,
        spec: Specification,
        profile: CalibrationProfile | None = None,
        small: AdaptiveModel | None = None,
    ) -> None:
        super().__init__()
        need(network, nn.Module, "network", "a torch.nn.Module; foveal.adapt(network) makes the model")
        need(spec, Specification, "spec", "the specification that foveal.adapt(network) makes")
        self.prepared = PreparedNetwork(network, spec.shape, spec.preprocess, spec.dense_modules)
        self.spec, self.profile = spec, profile
        self.tuned: TunedSettings | None = None
        self.small = small
        self._engine: Engine | None = None
        self._stamp: tuple[object, ...] = ()
        self._answerers: dict[Request, Answerer] = {}
        self.eval()

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        return self.prepared.network

    @property
    def engine(self) -> Engine:
        """What runs: a compiled program, or the layers one by one, and then `why_not` says why."""
        stamp = self._weights_now()
        if self._engine is None or stamp != self._stamp:
            scales = self.profile.scales if self.profile else None
            self._forget()
            beside = None if self.small is None else self.small.described()
            self._engine = build_engine(self.prepared, self.spec, scales, beside)
            self._stamp = stamp
        return self._engine

    def described(self) -> Model:
        """Return the model as calibration and latency know trained networks."""
        return describe_model(self.prepared, self.spec)

    @property
    def compiled(self) -> Compiled | None:
        """What the engine has made of the network as it is; None before, and beyond f32."""
        made = self._engine if self._stamp == self._weights_now() else None
        return None if made is None or made.precision != "f32" else made.made

    def forward(  # noqa: PLR0913
        self,
        image: Images,
        *,
        budget: float | None = None,
        latency_ms: float | None = None,
        risk: float | None = None,
        threshold: float | None = None,
        mask: Any = None,
        mask_share: float = 0.0,
        mask_border: str = "edge",
        always_adapt: bool = False,
    ) -> AdaptiveResult | list[AdaptiveResult]:
        """Segment images. Exactly one limit is given; another one with the next call costs nothing.

        Args:
            image: Images [N, C, H, W] or one [C, H, W], RGB in 0..1 or bytes; the name of a file, an image of
                Pillow, or an array [H, W, C], as `foveal.read_image` reads such files; or a list of them.
            budget: Share of the dense work, above 0 and at most 1.
            latency_ms: Time per image [ms]; this machine is measured the first time.
            risk: Expected disagreement with the dense network, a share; after `calibrate`.
            threshold: Gain per tile from which a tile is refined.
            mask: Wanted pixels [N, H, W] or cells [N, Gh, Gw], bool; the name of a file, an image of Pillow
                or an array that is not 0 where wanted; a list of them for a list of images. What is not
                wanted costs nothing and gets label 255.
            mask_share: A cell is wanted if more than this share of its pixels is.
            mask_border: What the edge of a mask borders on: "edge", zeros as beyond the image's edge, or
                "coarse", a first pass that goes one cell beyond the mask, and costs its tiles.
            always_adapt: Whether tiles run also where they are predicted to save nothing.

        Returns:
            Labels at the size of the images, and what they cost; a list of it for a list of images.

        Raises:
            ValueError: Not exactly one limit is given, it cannot be kept, or images or mask do not fit.
        """
        refuse_tracing()
        if torch.compiler.is_dynamo_compiling():  # its layers are compiled already, or run one by one
            limits: Any = {"budget": budget, "latency_ms": latency_ms, "risk": risk, "threshold": threshold}
            eager = torch.compiler.disable(self.forward)
            given: Any = {"mask": mask, "mask_share": mask_share, "mask_border": mask_border}
            return eager(image, **limits, **given, always_adapt=always_adapt)
        if self.training:
            raise ValueError(
                "the model is in training mode; call model.eval(), and train the network before foveal.adapt"
            )
        request = Request.read(
            always_adapt, mask_border, budget=budget, latency_ms=latency_ms, risk=risk, threshold=threshold
        )
        if is_one(image):
            return self._segment(image, request, mask, mask_share)
        if isinstance(mask, str) or not isinstance(mask, Sequence | Tensor | None):
            raise ValueError(f"mask is a {type(mask).__name__}; give a list with one mask per image")
        masks = [None] * len(image) if mask is None else list(mask)
        if len(masks) != len(image):
            raise ValueError(f"there are {len(image)} images and {len(masks)} masks; give one mask per image")
        pairs = zip(image, masks, strict=True)
        return [self._segment(one, request, wanted, mask_share) for one, wanted in pairs]

    def calibrate(
        self,
        images: Sequence[OneImage],
        precision: Precision | None = None,
        report: Progress | None = None,
    ) -> CalibrationProfile:
        """Measure how the network refines best and what that costs in agreement; no labels needed.

        Args:
            images: Images like those that will come, of any sizes, as they are given to a call.
            precision: What runs from now on; for "int8" ranges are found too. As before if None.
            report: Told what is done, how far it is, and the total.

        Returns:
            What was found; the model keeps it, and saves it with itself.

        Raises:
            ValueError: The images do not fit or are too small, or there is no program in the precision.
        """
        if isinstance(images, str) or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
            raise ValueError(
                f"images are a {type(images).__name__}; give a list of tensors [C, H, W], names of files, "
                "or images of Pillow or NumPy"
            )
        spec = self.spec if precision is None else replace(self.spec, precision=precision)
        prepared = PreparedImages(images, lambda image: self._padded(self._batch(image)))
        found = calibrate(self.prepared, spec, prepared, report)
        self.spec, self.profile = spec, found
        self._forget()
        return found

    def export(self, path: str | Path) -> Program:
        """Write the compiled program as one file, which `foveal.runtime` and `foveal.h` run without PyTorch.

        It computes in the model's precision, with the ranges and the settings that calibration found.

        Args:
            path: File to write, whatever its suffix.

        Returns:
            The program that was written.

        Raises:
            NotCompiled: An operation of the network has no step; the message says which.
            OSError: The file cannot be written, or the disk is full; an older one is as it was.
        """
        need_path(path, "path")
        model = self.described()
        program = self.engine.program or program_of(model)
        return write_program(program, path, info_of(model, self.profile, self.spec.scale))

    def _segment(
        self, image: OneImage, request: Request, given_mask: OneMask | None, mask_share: float
    ) -> AdaptiveResult:
        """Segment one batch."""
        raw = self._batch(image)
        size = (raw.shape[2], raw.shape[3])
        answerer = self._answerer(self.engine, request)
        tile, scale = answerer.setup.tile, answerer.setup.config.scale
        batch = self._padded(raw) if scale == 1 else raw  # shrunk images are padded afterwards
        padded = (batch.shape[2], batch.shape[3])
        wanted = read_wanted(given_mask)
        mask = None if wanted is None else read_mask(wanted, raw, padded, tile, mask_share)
        if mask is not None and not bool(mask.cells.any()):
            return nothing_wanted(mask.pixels, tile, self.spec.classes, self.spec.palette)
        choice = answerer.choose(padded)
        if mask is not None and answerer.setup.instead:
            choice = replace(choice, reason=answerer.setup.instead)
        method: Callable[..., Prediction] = answerer.method(choice)
        if mask is not None:
            method = partial(answerer.method_for_mask(choice).masked, wanted=mask.cells)
        run = partial(self._run, method, batch)
        found = run()
        labels = found.labels[:, : size[0], : size[1]]
        levels = levels_of(found, size, tile)
        if mask is not None:
            labels = labels.masked_fill(~mask.pixels.to(labels.device), VOID)
            levels = levels.masked_fill(~mask.cells[:, : levels.shape[1], : levels.shape[2]], SKIP)
        return AdaptiveResult(
            labels,
            found.trace.plan,
            levels,
            found.trace.work,
            choice.reason,
            choice.predicted_ms,
            tile,
            self.spec.classes,
            self.spec.palette,
            found,
            run,
            answerer.why,
        )

    def _run(self, method: Callable[..., Prediction], batch: Tensor) -> Prediction:
        """Run a method up to the labels."""
        with on_tiles(self.spec.name), torch.no_grad():
            found = method(batch)
        _ = found.labels
        return found

    def _batch(self, image: OneImage) -> Tensor:
        """Bring images to [N, C, H, W] as the network has its channels, in its precision.

        Raises:
            ValueError: They are no such images.
        """
        batch = batch_of(image, self.spec.shape.in_channels)
        like = next(iter(self.network.parameters()), torch.empty(0))
        batch = self.spec.preprocess.arrange(batch.to(like.device), like.dtype)
        return batch.contiguous(memory_format=torch.channels_last)

    def _padded(self, batch: Tensor) -> Tensor:
        """Pad images to sides that the network takes, at the level of a coarse pass too."""
        multiple = self.spec.shape.multiple
        if multiple > 1 and self.spec.method == "segblocks":
            multiple <<= self.spec.coarse_level
        return self.spec.preprocess.padded(batch, multiple)

    def _answerer(self, engine: Engine, request: Request) -> Answerer:
        """Return what answers a request; made once."""
        if request not in self._answerers:
            self._answerers[request] = Answerer(engine, self.spec, self.profile, request, self.tuned)
        return self._answerers[request]

    def _weights_now(self) -> tuple[object, ...]:
        """Say which weights the networks have."""
        beside = () if self.small is None else stamp_of(self.small.prepared)
        return (*stamp_of(self.prepared), *beside)

    def _forget(self) -> None:
        """Drop what follows from the weights."""
        self._engine, self._stamp, self._answerers = None, (), {}

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is made again: it holds addresses."""
        return {**vars(self), "_engine": None, "_stamp": (), "_answerers": {}}

    @property
    def note(self) -> str:
        """What nobody said and a user should know: how images are prepared; empty if somebody did."""
        return unsaid_images(self.network) if self.spec.preprocess.is_identity else ""

    def extra_repr(self) -> str:
        """Say what runs, and how."""
        spec, known = self.spec, "calibrated" if self.profile else "not calibrated"
        text = f"{spec.name}: {spec.method}, tile {spec.tile}, coarse level {spec.coarse_level}, {known}"
        return f"{text}\nnote: {self.note}" if self.note else text
