"""What a review is asked: which networks, on which images, how thoroughly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

TRAINED = "benchmarks/trained"
"""Folder of networks that recipes of the repository made."""
FILES = ("exits", "gates", "patches", "points", "lattice", "small", "weeds_network")
"""Fields that name files of the repository."""


@dataclass(frozen=True)
class Review:
    """Settings of a review; the networks are files of the repository, from whose root it runs.

    Attributes:
        out: Folder of everything that is written.
        street: Labelled street images, KIND:PATH; empty for generated ones.
        split: Split of the street images.
        weeds: Labelled images of fine, sparse content.
        clip: Successive labelled frames, KIND:PATH; empty for generated ones.
        clip_split: Split of the frames.
        network: The network that all methods run, where they do not need one of their own.
        exits: The same network with exits.
        gates: The same network with gates in its residual units.
        patches: The same network with a decoder of patches.
        points: The same network with a decoder of points.
        lattice: A lattice network with gates for its paths, trained for the same classes.
        small: A small network for the same classes.
        weeds_network: The network for `weeds`.
        budgets: Shares of the dense work.
        scales: Shares of the sides that whole images are shrunk to, for the static curve.
        limit: Images of a scene; None for all.
        frames: Frames of a video at most; None for all.
        timed: Images that are timed.
        offsets: How far views of an image are moved, to see whether answers move with them [px].
        moved: Images that are looked at through moved views.
    """

    out: Path
    street: str = ""
    split: str = "test"
    weeds: str = "folder:data/fine/weeds_cwfid"
    clip: str = ""
    clip_split: str = "clip_15hz"
    network: str = "camvid_rn18"
    exits: str = f"{TRAINED}/camvid_rn18_mess_0.safetensors"
    gates: str = f"{TRAINED}/camvid_rn18_dynconv_0.safetensors"
    patches: str = f"{TRAINED}/camvid_rn18_nrd_0.safetensors"
    points: str = f"{TRAINED}/camvid_rn18_points_0.safetensors"
    lattice: str = f"{TRAINED}/camvid_lattice8_0.safetensors"
    small: str = "benchmarks/studies/camvid_nano.safetensors"
    weeds_network: str = f"{TRAINED}/cwfid_rn18_0.safetensors"
    budgets: tuple[float, ...] = (0.3, 0.5, 0.7)
    scales: tuple[float, ...] = (0.75, 0.6, 0.5, 0.4, 0.3)
    limit: int | None = None
    frames: int | None = None
    timed: int = 6
    offsets: tuple[int, ...] = (0, 8, 16, 24)
    moved: int = 6

    @property
    def said(self) -> dict[str, Any]:
        """Settings as JSON has them, without the folder."""
        return {key: value for key, value in vars(self).items() if key != "out"}


def present(review: Review, checkout: Path) -> Review:
    """Put the networks of a checkout in, and leave out what data it does not have.

    Args:
        review: The settings; names of networks are within the checkout.
        checkout: Root of the repository.

    Raises:
        ValueError: A network is not there.
    """
    files = {name: checkout / getattr(review, name) for name in FILES}
    gone = [str(path) for path in files.values() if not path.is_file()]
    if gone:
        raise ValueError(f"{gone[0]} is not there; the review needs the networks of the whole repository")
    clip = review.street if review.street.startswith("camvid:") else ""
    weeds = checkout / review.weeds.partition(":")[2]
    here = f"folder:{weeds}" if weeds.is_dir() else review.weeds
    named: dict[str, Any] = {name: str(path) for name, path in files.items()}
    return replace(review, clip=clip, weeds=here, **named)


def brief(review: Review) -> Review:
    """Return settings that take minutes: they show that everything runs, and roughly where it lies."""
    return replace(
        review,
        budgets=(0.5,),
        scales=(0.7, 0.5),
        limit=min(6, review.limit or 6),
        frames=8,
        timed=2,
        offsets=(0, 16),
        moved=2,
    )
