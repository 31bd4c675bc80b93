"""Weights from files into encoders: plain or with BatchNorm folded into the convolutions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from foveal.models.mobilenet import read_quantised_mobilenet


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
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: damaged or no weights file ({_first_line(error)})") from None
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise WeightsError(f"{path}: damaged or no weights file ({_first_line(error)})") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise WeightsError(f"{path}: holds no state dict of tensors")
    return state


def load_encoder(encoder: nn.Module, path: str | Path) -> list[str]:
    """Load pretrained weights into an encoder.

    Understands plain state dicts, state dicts whose BatchNorm was folded into the convolutions (a
    convolution has a bias, norms are absent: the norm then becomes an identity plus that bias, the
    function is the same; see `calibrate_norms`), and int8 weights with one scale an output channel.
    Keys that the encoder lacks (a classifier, say) are ignored.

    Returns:
        Names of the encoder's parameters that the file did not provide.

    Raises:
        WeightsError: The file cannot be read, has another shape, or fits no layer.
    """
    state = read_state(path)
    if any(key.endswith(".weight.q") for key in state):
        state = read_quantised_mobilenet(state)
    own = encoder.state_dict()
    state = {key: value.float() for key, value in _unfold(encoder, state).items() if key in own}
    if not state:
        raise WeightsError(f"{path}: no key fits the encoder; it has keys such as '{next(iter(own))}'")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise WeightsError(
                f"{path}: '{key}' is {tuple(value.shape)}, the encoder needs {tuple(own[key].shape)}"
            )
    encoder.load_state_dict(state, strict=False)
    return [key for key in own if key not in state and not key.endswith("num_batches_tracked")]


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
