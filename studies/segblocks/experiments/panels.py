"""Pictures: the image, where the policy looks closely, and what comes out.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, figure 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from foveal.evaluation.evaluate import evaluate
from foveal.methods import Dense, SegBlocks
from foveal.storage.atomic import replacing
from studies.segblocks.entries import fixed
from studies.segblocks.experiment import Experiment
from studies.segblocks.images import single, spread
from studies.segblocks.learned import learned
from studies.segblocks.networks import Networks

IMAGES = 3
WIDTH, TITLE, GAP = 400, 28, 6
"""Width of a picture, height of a title and space between pictures [px]."""


@dataclass(frozen=True, kw_only=True)
class PanelRow:
    """An image at a target.

    Attributes:
        image: Its name.
        target: Share of the blocks at full resolution.
        fine: Share that the policy chose.
        work: Share of the dense network's.
        pixel_accuracy: Share of the labelled pixels that are right; None without labels.
        agreement: Share of the pixels with the dense network's label.
    """

    image: str
    target: float
    fine: float
    work: float
    pixel_accuracy: float | None
    agreement: float


@torch.no_grad()
def run(networks: Networks) -> list[PanelRow]:
    """Draw a few images, every target, into `panels.png`."""
    data = spread(networks.images.evaluated, IMAGES)
    methods = {target: learned(networks.segblocks(target)) for target in networks.targets()}
    entries = [fixed(method, "learned", target) for target, method in methods.items()]
    rows = []
    pictures = []
    for index in range(len(data)):
        found = evaluate(Dense(networks.dense().network).eval(), single(data, index), entries, timed=0)[1:]
        line, shares = _line(networks, methods, *data[index])
        pictures.append(line)
        rows += [
            PanelRow(
                image=data.name_of(index),
                target=target,
                fine=round(share, 4),
                work=row.work,
                pixel_accuracy=row.pixel_accuracy,
                agreement=row.agreement or 0.0,  # every pixel of a panel counts
            )
            for target, share, row in zip(methods, shares, found, strict=True)
        ]
    titles = ["image", "labels"]
    titles += [text for t in methods for text in (f"target {t:g}: blocks", f"target {t:g}: answer")]
    with replacing(networks.study.out / "panels.png") as part:
        sheet(pictures, titles).save(part)
    return rows


def sheet(lines: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image:
    """Put pictures into a table, all as wide, with a title over every column."""
    scaled = [[_fit(picture) for picture in line] for line in lines]
    heights = [max(picture.height for picture in line) for line in scaled]
    size = (len(titles) * (WIDTH + GAP) - GAP, TITLE + sum(heights) + GAP * (len(lines) - 1))
    page = Image.new("RGB", size, (255, 255, 255))
    pen, y = ImageDraw.Draw(page), TITLE
    for column, title in enumerate(titles):
        pen.text((column * (WIDTH + GAP), 4), title, (20, 20, 26), ImageFont.load_default(18))
    for line, height in zip(scaled, heights, strict=True):
        for column, picture in enumerate(line):
            page.paste(picture, (column * (WIDTH + GAP), y))
        y += height + GAP
    return page


def _line(
    networks: Networks, methods: dict[float, SegBlocks], image: Tensor, target: Tensor
) -> tuple[list[Image.Image], list[float]]:
    """Draw one image for all methods; return the share of the blocks at full resolution as well."""
    paint, palette = networks.tools.paint, networks.images.evaluated.palette
    pictures = [_picture(image), _picture(paint(image, target, palette))]
    shares = []
    for method in methods.values():
        prediction = method(image[None].contiguous(memory_format=torch.channels_last))
        plan = prediction.trace.plan
        assert plan is not None, "SegBlocks decides by a plan"
        shares.append(plan.share(0))
        work = float(prediction.trace.work[0])
        pictures.append(networks.tools.plan(image, plan.levels[0], plan.tile, f"work {work:.2f}"))
        pictures.append(_picture(paint(image, prediction.labels[0], palette)))
    return pictures, shares


def _picture(image: Tensor) -> Image.Image:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()
    return Image.fromarray(pixels.numpy())


def _fit(picture: Image.Image) -> Image.Image:
    height = round(picture.height * WIDTH / picture.width)
    return picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)


EXPERIMENT = Experiment(
    "Where the policy looks closely (figure 9)",
    "Tinted blocks run at half resolution.",
    run,
)
