"""Large images from disk to disk: sources, one plan, windows, sinks."""

from foveal.inference.large.result import LargeResult
from foveal.inference.large.segment import segment_large
from foveal.inference.large.source import ArraySource, Source, Window, open_source
from foveal.inference.large.task import Progress

__all__ = ["ArraySource", "LargeResult", "Progress", "Source", "Window", "open_source", "segment_large"]
