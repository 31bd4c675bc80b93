"""Pretrained weights into encoders: from timm or a file, plain or with BatchNorm folded into convolutions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveal.models.adapters import Pretrained, pretrained
from foveal.models.mobilenet import STAGES, SamePaddedConv2d, read_quantised_mobilenet
from foveal.storage.finite import check_finite
from foveal.storage.tensors import read_pickled, read_tensors

Normalisation = tuple[Tensor, Tensor]
"""Mean and deviation of the images that an encoder is given, three numbers each."""


class WeightsError(ValueError):
    """A weights file that cannot be read, or does not fit."""


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors`, `.pt` or `.pth` file, without executing code of the file.

    Raises:
        WeightsError: The file is missing, damaged or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path, "weights file", WeightsError)[0]
        state = read_pickled(path)
    except WeightsError:
        raise
    except TypeError:
        raise WeightsError(f"{path}: holds no state dict of tensors") from None
    except Exception as error:  # of the unpickler, which refuses all but tensors, and of what it calls
        raise WeightsError(f"{path}: damaged or no weights file ({_first_line(error)})") from None
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no state dict of tensors")
    return state


def load_encoder(
    encoder: nn.Module, source: str | Path, normalisation: Normalisation | None = None
) -> list[str]:
    """Load pretrained weights into an encoder.

    Understands plain state dicts of torchvision and timm, state dicts whose BatchNorm was folded into the
    convolutions (a convolution has a bias, norms are absent: the norm then becomes an identity plus that
    bias, the function is the same; see `calibrate_norms`), and int8 weights with one scale an output channel.
    Keys that the encoder lacks (a classifier, say) are ignored.

    Args:
        encoder: Where to.
        source: A file, or `timm:NAME` for a pretrained model that timm finds or downloads.
        normalisation: Of the images that the encoder will be given. Weights of timm that were trained with
            another one are adapted, exactly but for the outermost samples.

    Returns:
        Names of the encoder's parameters that the source did not provide.

    Raises:
        WeightsError: The source cannot be read, has another shape, or fits no layer.
    """
    theirs: Normalisation | None = None
    try:
        found = pretrained(str(source))
    except ValueError as error:
        raise WeightsError(str(error)) from None
    if found is not None:
        state, theirs = _read_pretrained(str(source), found, encoder)
    else:
        state = read_state(source)
    if any(key.endswith(".weight.q") for key in state):
        state = read_quantised_mobilenet(state)
    own = encoder.state_dict()
    state = _unfold(encoder, _mobilenet_names({_bare(key): value for key, value in state.items()}, own))
    state = {key: value.float() for key, value in state.items() if key in own}
    if not state:
        raise WeightsError(f"{source}: no key fits the encoder; it has keys such as '{next(iter(own))}'")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise WeightsError(
                f"{source}: '{key}' is {tuple(value.shape)}, the encoder needs {tuple(own[key].shape)}"
            )
    check_finite(state, source, WeightsError)
    encoder.load_state_dict(state, strict=False)
    if theirs and normalisation:
        _renormalise(encoder, theirs, normalisation)
    return [key for key in own if key not in state and not key.endswith("num_batches_tracked")]


def _read_pretrained(
    source: str, found: Pretrained, encoder: nn.Module
) -> tuple[dict[str, Tensor], Normalisation]:
    """Return the weights of a pretrained encoder, and what images it was trained on."""
    padded = any(isinstance(m, SamePaddedConv2d) for m in encoder.modules()), found.same_padding
    if padded[0] != padded[1]:
        styles = ["as TensorFlow does" if same else "symmetrically" for same in padded]
        warnings.warn(
            f"{source} pads {styles[1]} and the encoder {styles[0]}: its maps are shifted by up to a pixel "
            "per stride, which training has to mend",
            stacklevel=3,
        )
    return found.state, (torch.tensor(found.images.mean), torch.tensor(found.images.std))


def _bare(key: str) -> str:
    """Drop what wrappers for several devices put before a name."""
    return key.removeprefix("module.")


def _mobilenet_names(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn timm's names of a MobileNetV2 into those of torchvision, if the encoder has those."""
    if "features.0.0.weight" not in own or "conv_stem.weight" not in state:
        return state
    places = {"conv_stem": "features.0.0", "bn1": "features.0.1"}
    index = 1
    for stage, (expansion, _, count, _) in enumerate(STAGES):
        parts = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
        spots = ("0.0", "0.1", "1.0", "1.1", "2", "3")
        if expansion == 1:
            parts, spots = ("conv_dw", "bn1", "conv_pw", "bn2"), ("0.0", "0.1", "1", "2")  # type: ignore[assignment]
        for block in range(count):
            names = zip(parts, spots, strict=True)
            places |= {f"blocks.{stage}.{block}.{x}": f"features.{index}.conv.{y}" for x, y in names}
            index += 1
    split = {key: key.rpartition(".") for key in state}
    return {f"{places[x]}.{y}": state[key] for key, (x, _, y) in split.items() if x in places}


@torch.no_grad()
def _renormalise(encoder: nn.Module, theirs: Normalisation, ours: Normalisation) -> None:
    """Let a first convolution made for images normalised one way take images normalised another way.

    With x = (image - mean) / std, theirs is ours times std' / std plus (mean' - mean) / std: the factor goes
    into the weights, the sum into the mean of the norm. Zeros around the image stay zeros, which is the only
    difference.
    """
    (mean, std), (own_mean, own_std) = (
        tuple(x.flatten().double().cpu() for x in pair) for pair in (theirs, ours)
    )
    conv, _, layer = next(iter(_norm_after_convolution(encoder)))
    kernel: Any = encoder.get_submodule(conv).weight
    weight = kernel.double()
    shift = (weight * ((own_mean - mean) / std).view(1, -1, 1, 1)).sum((1, 2, 3))
    kernel.copy_(weight * (own_std / std).view(1, -1, 1, 1))
    layer.running_mean.sub_(shift)  # type: ignore[union-attr]


def _unfold(encoder: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the biases of convolutions that here have a norm instead into parameters of that norm."""
    state = dict(state)
    for conv, norm, layer in _norm_after_convolution(encoder):
        bias = state.pop(f"{conv}.bias", None)
        if bias is None or f"{norm}.weight" in state:
            continue
        state[f"{norm}.weight"] = torch.full_like(bias, (1 + layer.eps) ** 0.5, dtype=torch.float32)
        state[f"{norm}.bias"] = bias
        state[f"{norm}.running_mean"] = torch.zeros_like(bias)
        state[f"{norm}.running_var"] = torch.ones_like(bias)
    return state


def _norm_after_convolution(module: nn.Module) -> Iterable[tuple[str, str, nn.BatchNorm2d]]:
    """Name every convolution without bias, and the norm registered after it."""
    conv: tuple[str, nn.Conv2d] | None = None
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            conv = (name, layer) if layer.bias is None else None
        elif isinstance(layer, nn.BatchNorm2d) and conv and conv[1].out_channels == layer.num_features:
            yield conv[0], name, layer
            conv = None


@torch.no_grad()
def calibrate_norms(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Estimate the statistics of unfolded norms without changing what the module computes.

    A norm that came from a folded file has mean 0 and variance 1, whatever its input. Training needs the
    true ones. Scale and shift are corrected, so that the function stays the same.

    Args:
        module: An encoder, as `load_encoder` left it.
        batches: Some inputs [N, 3, H, W], normalised.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    sums: dict[nn.BatchNorm2d, tuple[Tensor, Tensor, int]] = {}

    def add(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        x = inputs[0].double()
        zero = x.new_zeros(x.shape[1])
        first, second, count = sums.get(norm, (zero, zero, 0))
        samples = x.numel() // x.shape[1]
        sums[norm] = first + x.sum((0, 2, 3)), second + x.square().sum((0, 2, 3)), count + samples

    handles = [norm.register_forward_pre_hook(add) for norm in norms]
    training = module.training
    module.eval()
    for batch in batches:
        module(batch)
    module.train(training)
    for handle in handles:
        handle.remove()
    for norm, (first, second, count) in sums.items():
        mean = first / count
        _restate(norm, mean, (second / count - mean * mean).clamp(min=1e-12))


def _restate(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    """Give a norm other statistics and the scale and shift that leave its function as it was."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()  # type: ignore[union-attr]
    shift = norm.bias.double() - scale * norm.running_mean.double()  # type: ignore[union-attr]
    norm.running_mean.copy_(mean)  # type: ignore[union-attr]
    norm.running_var.copy_(var)  # type: ignore[union-attr]
    norm.weight.copy_(scale * (var + norm.eps).sqrt())
    norm.bias.copy_(shift + scale * mean)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
