"""Networks as other people write them: they have never heard of Foveal."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from foveal.adaptive import AdaptiveModel


class Block(nn.Sequential):
    """Convolution, norm, activation."""

    def __init__(self, incoming: int, outgoing: int, stride: int = 1) -> None:
        convolution = nn.Conv2d(incoming, outgoing, 3, stride, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outgoing), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Two poolings of 2 x 2 and two enlargements: sides must be multiples of 4."""

    def __init__(self, channels: int = 3, classes: int = 4, mode: str = "bilinear") -> None:
        super().__init__()
        self.mode = mode
        if mode == "transposed":
            self.transposed = nn.ModuleList([nn.ConvTranspose2d(c, c, 2, 2) for c in (16, 8)])
        self.fine, self.middle, self.coarse = Block(channels, 8), Block(8, 16), Block(16, 16)
        self.up, self.last = Block(32, 8), Block(16, 8)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(8, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.fine(image)
        middle = self.middle(self.pool(fine))
        coarse = self.coarse(self.pool(middle))
        up = self.up(torch.cat([self._twice(coarse, 0), middle], 1))
        return self.head(self.last(torch.cat([self._twice(up, 1), fine], 1)))

    def _twice(self, x: Tensor, turn: int) -> Tensor:
        return self.transposed[turn](x) if self.mode == "transposed" else _twice(x, self.mode)


class Strided(nn.Module):
    """Stride 4 in the logits, any sides, and a choice of what is returned."""

    def __init__(
        self, channels: int = 3, classes: int = 4, wrap: Callable[[Tensor], Any] | None = None
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(Block(channels, 8, 2), Block(8, 16, 2), Block(16, 16))
        self.head, self.wrap = nn.Conv2d(16, classes, 1), wrap

    def forward(self, image: Tensor) -> Any:
        logits = self.head(self.body(image))
        return logits if self.wrap is None else self.wrap(logits)


class Attending(nn.Module):
    """A module that looks at the whole map, inside an ordinary network."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.context, self.head = Block(3, 8, 2), Context(), nn.Conv2d(8, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.context(self.body(image)))


class Context(nn.Module):
    """Weigh every place by how alike all others are."""

    def forward(self, x: Tensor) -> Tensor:
        flat = F.avg_pool2d(x, 8, ceil_mode=True).flatten(2)
        alike = (flat.transpose(1, 2) @ flat).softmax(-1)
        return x + (flat @ alike).mean(-1)[:, :, None, None]


def in_dict(logits: Tensor) -> dict[str, Tensor]:
    return {"aux": logits * 2, "out": logits}


def in_tuple(logits: Tensor) -> tuple[Any, ...]:
    return "what else", logits


def in_object(logits: Tensor) -> SimpleNamespace:
    return SimpleNamespace(logits=logits, loss=None)


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network weights and norms that leave maps alive, and put it into evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.1, 0.1, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean, module.running_var):
                assert value is not None
                nn.init.uniform_(value, 0.5, 1.5, generator=generator)
    return network.eval()


def make_unet(channels: int = 3, classes: int = 4) -> UNet:
    """Make a network again, as a file says."""
    return UNet(channels, classes)


def make_attending() -> nn.Module:
    """Make a network with a module that looks at the whole map."""
    return lively(Attending())


def make_lively() -> nn.Module:
    """Make a network of one's own, always the same."""
    return lively(UNet())


def picture(channels: int = 3, size: tuple[int, int] = (203, 270), count: int = 1, seed: int = 1) -> Tensor:
    """Draw coloured patches and some noise [N, C, H, W] in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.rand(count, channels, size[0] // 40 + 1, size[1] // 40 + 1, generator=generator)
    large = patches.repeat_interleave(40, 2).repeat_interleave(40, 3)[:, :, : size[0], : size[1]]
    return (large + 0.05 * torch.rand(large.shape, generator=generator)).clamp(0, 1)


def make_pair() -> UNet:
    """Make a network of two classes."""
    return UNet(3, 2)


def make_grey() -> Strided:
    """Make a network for grey images."""
    return Strided(1, 2)


def make_bands() -> UNet:
    """Make a network of one logit for four bands."""
    return UNet(4, 1)


def make_adaptive() -> nn.Module:
    """Make a network that says everything about itself."""
    import foveal

    return foveal.adapt(UNet(3, 2), classes=["soil", "plant"])


def describe_nothing() -> int:
    """Return no network."""
    return 3


def _twice(x: Tensor, mode: str = "bilinear") -> Tensor:
    return F.interpolate(x, scale_factor=2, mode=mode, align_corners=None if mode == "nearest" else False)


class Segmented(Dataset[Tensor]):
    """Images that are segmented where they are read, by a worker perhaps."""

    def __init__(self, model: AdaptiveModel) -> None:
        self.model = model

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        assert index < 4
        return self.model(picture(size=(128, 160), seed=index), budget=0.4).labels[0]
