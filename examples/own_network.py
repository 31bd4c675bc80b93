"""Your own network, adaptive in three lines: a small U-Net on a picture of seedlings in soil."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import foveal


class UNet(nn.Module):
    """An ordinary network that has never heard of Foveal; its sides must be multiples of 4."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.fine, self.middle, self.coarse = block(3, 16), block(16, 32), block(32, 32)
        self.merge, self.finish, self.head = block(64, 16), block(32, 16), nn.Conv2d(16, classes, 1)
        self.reduce = nn.MaxPool2d(2)
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Map images [N, 3, H, W] to logits at their size."""
        fine = self.fine(image)
        middle = self.middle(self.reduce(fine))
        merged = self.merge(torch.cat([self.enlarge(self.coarse(self.reduce(middle))), middle], 1))
        return {"out": self.head(self.finish(torch.cat([self.enlarge(merged), fine], 1)))}


def block(incoming: int, outgoing: int) -> nn.Sequential:
    """Convolution, norm, activation."""
    return nn.Sequential(
        nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False), nn.BatchNorm2d(outgoing), nn.ReLU()
    )


def field(seed: int, size: tuple[int, int] = (256, 320)) -> tuple[Tensor, Tensor]:
    """Draw green discs on brown soil [1, 3, H, W], and where they are [1, H, W]."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij")
    labels = torch.zeros(size, dtype=torch.long)
    for y, x, r in torch.rand(6, 3, generator=draw).tolist():
        labels[(rows - y * size[0]) ** 2 + (columns - x * size[1]) ** 2 < (6 + 14 * r) ** 2] = 1
    colours = torch.tensor([[0.45, 0.35, 0.25], [0.3, 0.6, 0.2]])[labels].permute(2, 0, 1)
    return (colours + 0.1 * torch.randn(3, *size, generator=draw)).clamp(0, 1)[None], labels[None]


def train(network: nn.Module, steps: int = 40) -> nn.Module:
    """Train as always; images are normalised as they will be later."""
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for step in range(steps):
        image, labels = field(step, (96, 128))
        optimiser.zero_grad()
        logits = network((image - 0.4) / 0.2)["out"]
        nn.functional.cross_entropy(logits, labels).backward()
        optimiser.step()
    return network.eval()


def main() -> None:
    """Train the network, adapt it, and compare budgets with its dense answer."""
    torch.manual_seed(0)
    network = train(UNet())
    image, labels = field(seed=1000)

    model = foveal.adapt(network, preprocess=foveal.Preprocess(mean=0.4, std=0.2), classes=["soil", "plant"])
    out = model(image, budget=0.4)
    out.to_pil().save("own_network.png")

    print(model.engine)
    dense = model(image, budget=1.0)
    for found in (dense, out, model(image, budget=0.2)):
        same = (found.labels == dense.labels).float().mean()
        right = (found.labels == labels).float().mean()
        print(f"work {float(found.work[0]):.3f}  as dense {same:.1%}  correct {right:.1%}")


if __name__ == "__main__":
    main()
