"""Write the recipes of the SegBlocks paper: a network, a data set and a method, chosen from one table.

python scripts/recipes.py --list                                  # the names
python scripts/recipes.py cityscapes_rn18_segblocks > rn18.toml   # one recipe on stdout
python scripts/recipes.py camvid_rn18 camvid_nano --out recipes/mine
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from foveal.storage.atomic import write_atomically

PAPER = (
    'Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, sections 3.3 and 4; what it leaves open is the first '
    "release's."
)
CODE = (
    "the released code, commit c4ca71b (2023); it differs from the paper in betas, crop, gamma and "
    "policy_weight."
)
FOREIGN = "The paper has no such network; its hyper-parameters are used as they are."


@dataclass(frozen=True)
class Network:
    """An architecture and where its encoder starts; no weights mean that nothing is pretrained."""

    title: str
    weights: str = ""
    note: str = ""
    bootstrapping: bool = False
    in_paper: bool = True


@dataclass(frozen=True)
class DataSet:
    """A data set and what the paper sets for it; `block` and `crop` are in pixels."""

    title: str
    split: str
    judged: str
    crop: int
    crop_source: str
    block: int
    batch: int
    epochs: int
    images: int
    note: str = ""

    @property
    def steps(self) -> int:
        """Return the number of steps; the last, incomplete batch of the run is left out."""
        return self.epochs * self.images // self.batch


@dataclass(frozen=True)
class Setting:
    """The values in which the paper and the released code differ; no crop means that of the data set."""

    source: str
    gamma: float
    policy_weight: float
    betas: str
    crop: int = 0


NETWORKS = {
    "rn18": Network("SwiftNet with ResNet-18", "timm:resnet18.tv_in1k", "torchvision's, on ImageNet"),
    "rn50": Network("SwiftNet with ResNet-50", "timm:resnet50.tv_in1k", "torchvision's, on ImageNet"),
    "efflite1": Network(
        "SwiftNet with EfficientNet-Lite1",
        "timm:tf_efficientnet_lite1.in1k",
        "padded as in TensorFlow, the network symmetrically",
        bootstrapping=True,
    ),
    "mobilenetv2": Network(
        "SwiftNet with MobileNetV2",
        "data/weights/mobilenet_v2_1.0_imagenet_int8_features.pt",
        in_paper=False,
    ),
    "nano": Network("swiftnet_nano", in_paper=False),
}
DATA = {
    "cityscapes": DataSet(
        "Cityscapes at 2048x1024",
        "train",
        "val",
        768,
        "the paper's text at hand lost its digits, the first release has 768",
        128,
        8,
        350,
        2975,
    ),
    "camvid": DataSet(
        "CamVid at 960x720",
        "full_train",
        "full_test",
        704,
        "section 4.2",
        64,
        8,
        350,
        367,
        "The paper adds the validation images (468 in all) and takes the stride out of the last stage; here "
        "the network is as it is.",
    ),
    "mapillary": DataSet(
        "Mapillary Vistas",
        "train",
        "val",
        768,
        "as on Cityscapes",
        128,
        4,
        100,
        18000,
        "The paper resizes all images to 1536x1152 first and counts 15000 of them; its only network here is "
        "EfficientNet-Lite1.",
    ),
}
SETTINGS = {
    "paper": Setting(PAPER, 10.0, 4.0, "[0.9, 0.99]        # the first release's; the second has 0.5, 0.999"),
    "code": Setting(CODE, 1.0, 1.0, "[0.5, 0.999]", crop=1024),
}
ONLY_CODE = ("cityscapes", "rn18")
"""Data set and network of the recipe with the values of the released code."""


def names() -> list[str]:
    """Return the names of all recipes: DATA_NETWORK[_segblocks[_code]]."""
    found = [f"{data}_{net}{kind}" for data in DATA for net in NETWORKS for kind in ("", "_segblocks")]
    return [*found, "_".join((*ONLY_CODE, "segblocks", "code"))]


def recipe(name: str) -> str:
    """Return the text of a recipe.

    Raises:
        ValueError: There is no recipe of that name.
    """
    if name not in names():
        raise ValueError(f"no recipe '{name}'; --list prints the names, such as {names()[0]}")
    data, network, *method = name.split("_")
    chosen = SETTINGS["code" if "code" in method else "paper"]
    parts = (
        _head(NETWORKS[network], DATA[data], chosen, bool(method)),
        _model(network),
        _data(data, chosen),
        _segblocks(DATA[data], chosen) if method else _dense(DATA[data]),
        _train(NETWORKS[network], DATA[data], chosen, bool(method)),
    )
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _head(network: Network, data: DataSet, chosen: Setting, adaptive: bool) -> list[str]:
    kind = "SegBlocks, network and policy trained together from epoch 0" if adaptive else "the dense baseline"
    notes = [note for note in (data.note, "" if network.in_paper else FOREIGN) if note]
    said = [f"{network.title} on {data.title}: {kind}.", f"Source: {chosen.source}", *notes]
    return [*(f"# {line}" for line in said), "seed = 0"]


def _model(network: str) -> list[str]:
    start = NETWORKS[network]
    lines = ["[model]", f'name = "swiftnet_{network}"']
    if start.weights:
        note = f"  # {start.note}" if start.note else ""
        lines.append(f'encoder_weights = "{start.weights}"{note}')
    return lines


def _data(data: str, chosen: Setting) -> list[str]:
    given = DATA[data]
    side, note = (chosen.crop, "") if chosen.crop else (given.crop, f", {given.crop_source}")
    return [
        "[data]",
        f'train = "{data}:data/{data}"',
        f'split = "{given.split}"',
        f"crop = [{side}, {side}]  # px{note}",
        "scale = [0.5, 2.0]",
        "jitter = 0.3",
    ]


def _dense(data: DataSet) -> list[str]:
    tile = f"tile = {data.block // 2}                  # px, recommended by the card"
    return ["[method]", 'name = "dense"', tile, "max_level = 1", "coarse_level = 1"]


def _segblocks(data: DataSet, chosen: Setting) -> list[str]:
    return [
        "[method]",
        'name = "segblocks"',
        'policy = "learned"',
        f"block = {data.block}                # px",
        f"tile = {data.block // 2}                  # px: a block is 2x2 tiles at full resolution, or one at "
        "half",
        "max_level = 1",
        "coarse_level = 1",
        "target = 0.4               # share of the blocks at full resolution; the paper also has 0.2",
        f"gamma = {chosen.gamma}",
        f"policy_weight = {chosen.policy_weight}",
        'gradient = "reinforce"',
        "policy_width = 64",
        "policy_depth = 4",
        "frozen = false",
    ]


def _train(network: Network, data: DataSet, chosen: Setting, adaptive: bool) -> list[str]:
    encoder = (
        ["encoder_factor = 0.25", "weight_decay = 1e-4", "encoder_decay_factor = 0.25"]
        if network.weights
        else ["encoder_factor = 1.0       # nothing is pretrained", "weight_decay = 1e-4"]
    )
    hardest = "hardest = 0.25  # for its bootstrapping: losses above 0.3, at least 4096 px; the share is ours"
    return [
        "[train]",
        f"steps = {data.steps}  # {data.epochs} epochs of {data.images} images",
        f"batch = {data.batch}",
        'optimiser = "adam"         # weight decay is part of the gradient',
        f"betas = {chosen.betas}",
        "learning_rate = 4e-4",
        "schedule_end = 0.0025      # 1e-6",
        "warmup = 0",
        *encoder,
        *(["policy_factor = 1.0"] if adaptive else []),
        "average = 0.0              # the last weights count",
        "class_balance = 0.0        # every pixel counts alike",
        *([hardest] if network.bootstrapping else []),
        "save_every = 1000",
        f'evaluate = "{data.judged}"',
        'device = "cuda"',
    ]


def main(arguments: list[str] | None = None) -> int:
    """Write the recipes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="DATA_NETWORK[_segblocks[_code]]")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--out", type=Path, help="folder of the files NAME.toml; stdout if absent")
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(names()))
        return 0
    if not given.names or (len(given.names) > 1 and given.out is None):
        parser.error("give one NAME, or several and --out FOLDER; --list prints the names")
    try:
        texts = {name: recipe(name) for name in given.names}
    except ValueError as error:
        parser.error(str(error))
    for name, text in texts.items():
        if given.out is None:
            sys.stdout.write(text)
        else:
            given.out.mkdir(parents=True, exist_ok=True)
            write_atomically(given.out / f"{name}.toml", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
