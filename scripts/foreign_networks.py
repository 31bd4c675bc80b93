"""Networks of other people that `scripts/networks.py` tries: their names, and how each is made, untrained."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn

from foveal.models.adapters.torchvision import import_torchvision

CLASSES = 7
PLAIN = ("resnet18", "resnet34", "resnet50", "efficientnet-b0", "mobilenet_v2", "timm-regnety_002")
TIMM = ("tu-convnext_tiny", "mit_b0")
KINDS = (
    "resnext50_32x4d",
    "densenet121",
    "vgg11_bn",
    "se_resnet50",
    "xception",
    "inceptionv4",
    "timm-res2net50_26w_4s",
    "mobileone_s0",
    "dpn68",
    "timm-skresnet18",
    "timm-resnest14d",
)
"""Encoders of other kinds: groups, dense joins, no residuals, gates, depthwise, branches, split attention."""
SMP: dict[str, tuple[str, ...]] = {
    "Unet": (*PLAIN, "timm-mobilenetv3_large_100", *TIMM, *KINDS),
    "UnetPlusPlus": ("resnet34", "efficientnet-b0", "mobilenet_v2", "tu-convnext_tiny"),
    "FPN": ("resnet34", "efficientnet-b0", "mobilenet_v2", *TIMM),
    "DeepLabV3Plus": ("resnet34", "efficientnet-b0", "mobilenet_v2", "tu-convnext_tiny"),
    "DeepLabV3": ("resnet34",),
    "Linknet": ("resnet34", "efficientnet-b0", "mobilenet_v2", "tu-convnext_tiny"),
    "PSPNet": ("resnet34", "efficientnet-b0", *TIMM),
    "PAN": ("resnet34",),
    "MAnet": ("resnet34",),
    "UPerNet": ("resnet34", *TIMM),
    "Segformer": ("resnet34", "mit_b0"),
}
TORCHVISION = (
    "fcn_resnet50",
    "lraspp_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_mobilenet_v3_large",
)
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SegFormer": ("Segformer", {}),
    "UPerNet-ResNet": (
        "UperNet",
        {"backbone": ("ResNet", {"out_features": ["stage1", "stage2", "stage3", "stage4"]})},
    ),
    "UPerNet-ConvNeXt": (
        "UperNet",
        {
            "backbone": (
                "ConvNext",
                {
                    "hidden_sizes": [96, 192, 384, 768],
                    "out_features": ["stage1", "stage2", "stage3", "stage4"],
                },
            )
        },
    ),
    "DPT": (
        "DPT",
        {"hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 192, "image_size": 256},
    ),
    "BEiT": (
        "Beit",
        {
            "hidden_size": 96,
            "num_attention_heads": 4,
            "intermediate_size": 192,
            "image_size": 256,
            "out_indices": [3, 5, 7, 11],
        },
    ),
    "MobileViT": ("MobileViT", {}),
    "MobileViTV2": ("MobileViTV2", {}),
    "MobileNetV2-DeepLab": ("MobileNetV2", {}),
}


def make_smp(architecture: str, encoder: str) -> nn.Module:
    """Make a network of segmentation_models_pytorch."""
    import_torchvision()
    smp = importlib.import_module("segmentation_models_pytorch")
    made: nn.Module = getattr(smp, architecture)(encoder, encoder_weights=None, classes=CLASSES)
    return made


def make_torchvision(name: str) -> nn.Module:
    """Make a network of torchvision."""
    import_torchvision()
    models = importlib.import_module("torchvision.models.segmentation")
    made: nn.Module = getattr(models, name)(weights=None, weights_backbone=None, num_classes=CLASSES)
    return made


def make_transformers(family: str, settings: dict[str, Any]) -> nn.Module:
    """Make a network of transformers."""
    import_torchvision()
    library = importlib.import_module("transformers")
    given = dict(settings)
    if "backbone" in given:
        backbone, options = given.pop("backbone")
        given["backbone_config"] = getattr(library, f"{backbone}Config")(**options)
    config = getattr(library, f"{family}Config")(num_labels=CLASSES, **given)
    made: nn.Module = getattr(library, f"{family}ForSemanticSegmentation")(config)
    return made


def make_dpt(dynamic: bool) -> nn.Module:
    """Make the DPT of segmentation_models_pytorch, on a small encoder that takes one size or many."""
    import_torchvision()
    smp = importlib.import_module("segmentation_models_pytorch")
    settings = {"encoder_weights": None, "classes": CLASSES, "dynamic_img_size": dynamic}
    made: nn.Module = smp.DPT("tu-vit_tiny_patch16_224", **settings)
    return made


def make_mask2former() -> nn.Module:
    """Make a small Mask2Former, whose logits are of queries."""
    import_torchvision()
    library = importlib.import_module("transformers")
    stages = [f"stage{k}" for k in range(1, 5)]
    backbone = library.SwinConfig(
        embed_dim=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], out_features=stages
    )
    sizes = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_queries": 10}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_feedforward_dim": 64, "dim_feedforward": 64}
    config = library.Mask2FormerConfig(backbone_config=backbone, num_labels=CLASSES, **sizes, **layers)
    made: nn.Module = library.Mask2FormerForUniversalSegmentation(config)
    return made


def networks() -> Iterator[tuple[str, str, Callable[[], nn.Module]]]:
    """Name every network: library, name, and what makes it."""
    for architecture, encoders in SMP.items():
        for encoder in encoders:
            yield (
                "segmentation_models_pytorch",
                f"{architecture}/{encoder}",
                partial(make_smp, architecture, encoder),
            )
    yield "segmentation_models_pytorch", "DPT/vit_tiny", partial(make_dpt, False)
    yield "segmentation_models_pytorch", "DPT/vit_tiny-dynamic", partial(make_dpt, True)
    for name in TORCHVISION:
        yield "torchvision", name, partial(make_torchvision, name)
    for name, (family, settings) in TRANSFORMERS.items():
        yield "transformers", name, partial(make_transformers, family, settings)
    yield "transformers", "Mask2Former", make_mask2former
