"""MobileNetV2 encoder (Sandler et al., CVPR 2018), with the parameter names of torchvision.

Source: "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2, without the last 1x1 convolution.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, number of blocks and stride of the first block, per stage."""

RETURNED = (3, 6, 13, 17)
"""Indices of the last block at strides 4, 8, 16 and 32."""


class MobileNetV2Encoder(nn.Module):
    """MobileNetV2 without its classifier: 11.7 GMAC at 1024x2048 and width 1.

    Args:
        width: Multiplier of all channels.
        same_padding: Pad strided convolutions as TensorFlow does; weights trained there need it.

    Attributes:
        channels: Channels of every returned map, finest first.
        strides: Input pixels per sample of every returned map, finest first.
    """

    def __init__(self, width: float = 1.0, same_padding: bool = False) -> None:
        super().__init__()
        incoming = round_channels(32, width)
        blocks: list[nn.Module] = [ConvNormAct(3, incoming, 3, 2, same_padding)]
        outgoing = [incoming]
        for expansion, channels, count, stride in STAGES:
            for index in range(count):
                outgoing.append(round_channels(channels, width))
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(incoming, outgoing[-1], expansion, step, same_padding))
                incoming = outgoing[-1]
        self.features = nn.Sequential(*blocks)
        self.channels = tuple(outgoing[index] for index in RETURNED)
        self.strides = (4, 8, 16, 32)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map [N, 3, H, W] to four maps [N, C, H / stride, W / stride], sides rounded up."""
        x = image
        maps = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in RETURNED:
                maps.append(x)
        return maps


class InvertedResidual(nn.Module):
    """Expand with 1x1, filter every channel with 3x3, project with 1x1 (linear)."""

    def __init__(
        self, incoming: int, outgoing: int, expansion: int, stride: int, same_padding: bool = False
    ) -> None:
        super().__init__()
        hidden = incoming * expansion
        expand = [ConvNormAct(incoming, hidden, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            ConvNormAct(hidden, hidden, 3, stride, same_padding, groups=hidden),
            convolution(hidden, outgoing, 1),
            nn.BatchNorm2d(outgoing),
        )
        self.residual = stride == 1 and incoming == outgoing

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, outgoing, H / stride, W / stride]."""
        return x + self.conv(x) if self.residual else self.conv(x)


class ConvNormAct(nn.Sequential):
    """Convolution, BatchNorm, ReLU6."""

    def __init__(
        self,
        incoming: int,
        outgoing: int,
        kernel: int,
        stride: int = 1,
        same_padding: bool = False,
        *,
        groups: int = 1,
    ) -> None:
        super().__init__(
            convolution(incoming, outgoing, kernel, stride, same_padding, groups=groups),
            nn.BatchNorm2d(outgoing),
            nn.ReLU6(),
        )


class SamePaddedConv2d(nn.Conv2d):
    """A convolution of stride 2, odd kernel k and TensorFlow's SAME padding of maps with even sides.

    It pads (k - 2) // 2 before and k // 2 after each axis: (0, 1) for k = 3. An odd side gets one row or
    column more at its end (TensorFlow: at its start), so that sample positions depend on no image size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, outgoing, H / 2, W / 2], sides rounded up."""
        kernel, (height, width) = self.kernel_size[0], x.shape[-2:]
        before, after = (kernel - 2) // 2, kernel // 2
        return super().forward(F.pad(x, (before, after + width % 2, before, after + height % 2)))


def convolution(
    incoming: int, outgoing: int, kernel: int, stride: int = 1, same_padding: bool = False, *, groups: int = 1
) -> nn.Conv2d:
    """Build a convolution without bias, padded to keep ceil(side / stride); SAME differs at stride 2 only."""
    if same_padding and stride == 2:
        return SamePaddedConv2d(incoming, outgoing, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(incoming, outgoing, kernel, stride, kernel // 2, groups=groups, bias=False)


def round_channels(channels: int, width: float) -> int:
    """Scale channels and round to a multiple of 8, losing at most 10 %."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels * width else rounded + 8


def read_quantised_mobilenet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn int8 weights with one scale per output channel into floats.

    Args:
        state: For every layer K: `K.weight.q` (int8, [O, I, k, k]), `K.weight.scale` [O] and `K.bias` [O].

    Returns:
        `K.weight` and `K.bias`, float: convolutions into which BatchNorm is folded.

    Raises:
        ValueError: An int8 weight lacks its scale, or the scale does not fit it.
    """
    floats = {key: value.float() for key, value in state.items() if not key.endswith((".q", ".scale"))}
    for key in state:
        if key.endswith(".weight.q"):
            floats[key.removesuffix(".q")] = _dequantise(state, key.removesuffix(".q"))
    return floats


def _dequantise(state: dict[str, Tensor], name: str) -> Tensor:
    weight, scale = state[f"{name}.q"], state.get(f"{name}.scale")
    if scale is None or scale.shape != weight.shape[:1]:
        given = "none" if scale is None else f"shape {tuple(scale.shape)}"
        raise ValueError(f"'{name}.q' needs one scale per output channel ({len(weight)}), given {given}")
    return weight.float() * scale.view(-1, *[1] * (weight.dim() - 1))
