"""Plain folders of images and masks: the layout for data of one's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from foveal.data.image import looks_like_image, read_labels
from foveal.data.pairs import Dataset, Palette, default_palette, pair_some
from foveal.storage.labels import VOID
from foveal.storage.reading import read_json
from foveal.storage.schema import Byte, Colour, Count, Name, read_as

LAYOUT = "expected images/[SPLIT/]NAME.jpg and masks/[SPLIT/]NAME.png (or labels/), one stem a pair"
BINARY = (0, VOID)
"""Values of masks that other tools write for background and foreground."""
CLASS_FILE_SHAPE = (
    '{"classes": ["road", ...], "palette": [[128, 64, 128], ...]} or'
    ' {"classes": [{"id": 0, "name": "road", "color": [128, 64, 128]}, ...]} with ids 0, 1, ... without gaps'
)


@dataclass(frozen=True)
class _Entry:
    id: Count
    name: Name
    color: Colour | None = None


@dataclass(frozen=True)
class _ClassFile:
    classes: tuple[Name, ...] | tuple[_Entry, ...]
    palette: tuple[Colour, ...] | None = None
    ignore_index: Byte | None = None


class ClassList(NamedTuple):
    """Class names, one colour each, and the pixel value that means void; None if nobody says."""

    names: tuple[str, ...]
    palette: Palette
    void: int | None = None


def open_folder(root: str | Path, split: str = "test") -> Dataset:
    """Open plain folders of images and masks, where a pixel of a mask is its class id, 255 void.

    Folders without a SPLIT level hold one split, which is opened whatever `split` says. Names and
    colours come from ROOT/classes.json, which may also give another void value as "ignore_index".
    Without that file all masks of all splits are read once to find the number of classes. Masks that hold
    0 and 255 and nothing else are background and foreground, unless "ignore_index" is given.

    Args:
        root: the folder that holds images/, masks/ (or labels/) and perhaps classes.json.
        split: the name of a folder inside images/ and masks/, if they have such.

    Returns:
        The data set; images without a mask are listed apart.

    Raises:
        ValueError: a folder, a mask or the split is missing, classes.json is malformed, or the masks do not
            say which values are classes.
    """
    root = Path(root)
    masks = root / "masks" if (root / "masks").is_dir() else root / "labels"
    pairs, without = pair_some(_split_folder(root / "images", split), _split_folder(masks, split))
    class_file = root / "classes.json"
    listed = read_classes(class_file) if class_file.exists() else None
    unsure = listed is None or (len(listed.names) == 2 and listed.void is None)
    values = _values_in(masks) if unsure else ()
    total = len(pairs) + len(without)
    notes = [f"{len(without)} of {total} images have no mask, such as {without[0].name}"] if without else []
    remap: Tensor | None = None
    if values == BINARY:
        notes.append(f"{masks} holds 0 and {VOID} alone: background and foreground")
        remap = _remap(VOID, 1)
        names, palette, _ = listed or ClassList(("background", "foreground"), default_palette(2))
    else:
        names, palette, void = listed or _counted(values, masks)
        remap = None if void is None or void == VOID else _remap(void, VOID)
    name = f"{root.resolve().name}/{split}"
    found = Dataset(name, names, palette, pairs, remap, unlabelled=without, notes=tuple(notes))
    return replace(found, counted=listed is None and values != BINARY)


def read_classes(path: Path) -> ClassList:
    """Read a classes.json.

    Args:
        path: a file of the shape that `CLASS_FILE_SHAPE` shows; the bare list of classes will do too.

    Returns:
        The classes in the order of their ids.

    Raises:
        ValueError: the file cannot be read or has another shape.
    """
    content = read_json(path, "list of classes")
    content = {"classes": content} if isinstance(content, list) else content
    try:
        return _listed(read_as(_ClassFile, content, path, "list of classes"))
    except ValueError:
        raise ValueError(f"{path} is no list of classes: expected {CLASS_FILE_SHAPE}.") from None


def _listed(file: _ClassFile) -> ClassList:
    names, palette = tuple(name for name in file.classes if isinstance(name, str)), file.palette
    if not names:
        entries = sorted((entry for entry in file.classes if isinstance(entry, _Entry)), key=lambda e: e.id)
        _require([entry.id for entry in entries] == list(range(len(entries))))
        names = tuple(entry.name for entry in entries)
        colours = tuple(entry.color for entry in entries if entry.color is not None)
        palette = colours or palette
    _require(0 < len(names) <= VOID)
    palette = default_palette(len(names)) if palette is None else palette
    _require(len(palette) == len(names))
    return ClassList(names, palette, file.ignore_index)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def _split_folder(base: Path, split: str) -> Path:
    """Find the folder of one split: BASE/SPLIT, or BASE itself where images lie in it directly."""
    if not base.is_dir():
        raise ValueError(f"{base} does not exist: {LAYOUT}.")
    if (base / split).is_dir():
        return base / split
    if any(looks_like_image(path) for path in base.iterdir()):
        return base
    splits = sorted(path.name for path in base.iterdir() if path.is_dir())
    raise ValueError(f"{base} has no split {split!r}; it has {', '.join(splits) or 'nothing'}: {LAYOUT}.")


def _values_in(masks: Path) -> tuple[int, ...]:
    """List the values that occur in the masks below a folder."""
    paths = filter(looks_like_image, sorted(masks.rglob("*")))
    found: set[int] = set()
    for ids in map(read_labels, paths):
        found.update(ids.unique().tolist())
    return tuple(sorted(found))


def _counted(values: tuple[int, ...], masks: Path) -> ClassList:
    """Count the classes from the values that masks hold.

    Raises:
        ValueError: There is none, or two values leave open what they are.
    """
    known = [value for value in values if value != VOID]
    if not known:
        raise ValueError(f"{masks} holds void ({VOID}) only; a mask must hold class ids 0, 1, ...")
    if len(known) == 2 and known[1] > 1:
        raise ValueError(
            f"{masks} holds the values {known[0]} and {known[1]} alone, no ids 0 and 1; give 0 and 255 for "
            f"two classes, or name all classes in {masks.parent / 'classes.json'}."
        )
    names = tuple(f"class_{index:02d}" for index in range(known[-1] + 1))
    return ClassList(names, default_palette(len(names)))


def _remap(value: int, label: int) -> Tensor:
    """Return a table that gives one value another label."""
    remap = torch.arange(256, dtype=torch.uint8)
    remap[value] = label
    return remap
