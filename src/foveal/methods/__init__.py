"""Adaptive methods, one file each. Another one is one file and one line in `METHODS`."""

from __future__ import annotations

from foveal.methods.base import AdaptiveSegmenter, TrainableSegmenter
from foveal.methods.blockcopy import BlockCopy, BlockCopyConfig
from foveal.methods.coarse_to_fine import CoarseToFine, CoarseToFineConfig
from foveal.methods.compiled import CompiledMethod, CompiledNetwork
from foveal.methods.compiled_frames import CompiledFrames
from foveal.methods.config import Aim, MethodConfig, MethodTraining, Resources
from foveal.methods.dense import Dense, DenseConfig
from foveal.methods.dynamic_decoder import DynamicDecoder, DynamicDecoderConfig
from foveal.methods.dynconv import DynConv, DynConvConfig
from foveal.methods.layer_cascade import LayerCascade, LayerCascadeConfig
from foveal.methods.mess import Mess, MessConfig
from foveal.methods.model_select import ModelSelect, ModelSelectConfig
from foveal.methods.prediction import Prediction, Step, Trace
from foveal.methods.routing import Routing, RoutingConfig
from foveal.methods.segblocks import SegBlocks, SegBlocksConfig
from foveal.methods.video_coarse_to_fine import VideoCoarseToFine, VideoCoarseToFineConfig
from foveal.policies.refinement import Refinement

METHODS: dict[str, type[AdaptiveSegmenter]] = {
    "dense": Dense,
    "segblocks": SegBlocks,
    "coarse_to_fine": CoarseToFine,
    "blockcopy": BlockCopy,
    "video_coarse_to_fine": VideoCoarseToFine,
    "layer_cascade": LayerCascade,
    "mess": Mess,
    "model_select": ModelSelect,
    "dynamic_decoder": DynamicDecoder,
    "routing": Routing,
    "dynconv": DynConv,
}

__all__ = [
    "METHODS",
    "AdaptiveSegmenter",
    "Aim",
    "BlockCopy",
    "BlockCopyConfig",
    "CoarseToFine",
    "CoarseToFineConfig",
    "CompiledFrames",
    "CompiledMethod",
    "CompiledNetwork",
    "Dense",
    "DenseConfig",
    "DynConv",
    "DynConvConfig",
    "DynamicDecoder",
    "DynamicDecoderConfig",
    "LayerCascade",
    "LayerCascadeConfig",
    "Mess",
    "MessConfig",
    "MethodConfig",
    "MethodTraining",
    "ModelSelect",
    "ModelSelectConfig",
    "Prediction",
    "Refinement",
    "Resources",
    "Routing",
    "RoutingConfig",
    "SegBlocks",
    "SegBlocksConfig",
    "Step",
    "Trace",
    "TrainableSegmenter",
    "VideoCoarseToFine",
    "VideoCoarseToFineConfig",
]
