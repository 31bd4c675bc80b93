"""Street-like scenes with exact labels, at any size, with a still or a moving camera.

A scene is drawn from a seed and rendered with a pinhole camera: :func:`street` does both,
:class:`StreetScenes` is a data set of such pictures. Classes and colours are those of CamVid.
"""

from __future__ import annotations

from torch import Tensor

from foveal.data.synthetic.render import checked, render
from foveal.data.synthetic.scene import Scene
from foveal.storage.given import need

__all__ = ["CLASSES", "PALETTE", "Scene", "StreetScenes", "render", "street"]

CLASSES: tuple[str, ...] = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip

PALETTE: tuple[tuple[int, int, int], ...] = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip


def street(seed: int, size: tuple[int, int] = (720, 960), frame: float = 0.0) -> tuple[Tensor, Tensor]:
    """Draw a street scene from a seed and render it.

    Args:
        seed: Any integer; the same seed, size and frame give the same result bit by bit.
        size: Height and width of the picture [px].
        frame: Time [frames].

    Returns:
        Picture, float32 RGB in 0..1 [3, H, W], and class ids, uint8 [H, W].
    """
    need(seed, int, "seed", "a whole number")
    return render(Scene.random(seed), size, frame)


class StreetScenes:
    """A map-style data set of street scenes; item i is always the same.

    Attributes:
        name: Name of the data set.
        classes: Class names, by class id.
        palette: RGB colours of the classes as bytes, by class id.
    """

    name = "street"
    classes = CLASSES
    palette = PALETTE

    def __init__(self, count: int, size: tuple[int, int] = (360, 480), seed: int = 0) -> None:
        """Describe ``count`` scenes of one size [px]; other seeds give other scenes."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"count must be a whole number of scenes, 0 or more, got {count!r}.")
        self.count, self.size, self.seed = count, checked(size), seed

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Render a scene: picture, float32 [3, H, W] in 0..1, and class ids, uint8 [H, W]."""
        if not -self.count <= index < self.count:
            allowed = f"0..{self.count - 1}" if self.count else "nothing, for there are no scenes"
            raise IndexError(f"index must be in {allowed}, got {index}.")
        return street(self.seed * 1_000_003 + index % self.count, self.size)
