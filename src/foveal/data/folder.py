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
FAR, MOST_GREYS = 8, 32
"""Classes written as grey levels are at least so far apart, and at most so many."""
SPARSE = 4
"""Values that reach so many times as far as there are of them are no class ids."""
CLASS_FILE_SHAPE = (  # beside "classes" also "ignore_index" and "values"
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
    values: tuple[Byte, ...] | None = None


class ClassList(NamedTuple):
    """Class names, a colour each, and the pixel values of void and of the classes; None if nobody says."""

    names: tuple[str, ...]
    palette: Palette
    void: int | None = None
    values: tuple[int, ...] | None = None


def open_folder(root: str | Path, split: str = "test") -> Dataset:
    """Open plain folders of images and masks, where a pixel of a mask is its class id, 255 void.

    Folders without a SPLIT level hold one split, which is opened whatever `split` says. Names and
    colours come from ROOT/classes.json, which may also give another void value as "ignore_index", and the
    pixel value of every class as "values". Without that file all masks of all splits are read once to find
    the number of classes. Masks that hold 0 and 255 and nothing else are background and foreground, unless
    "ignore_index" is given; a few evenly spaced grey levels from 0 on are a class each.

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
    values = _values_in(masks) if unsure or (listed and listed.values) else ()
    total = len(pairs) + len(without)
    notes = [f"{len(without)} of {total} images have no mask, such as {without[0].name}"] if without else []
    if (listed is None or listed.values is None) and (written := _written(values, masks)) is not None:
        known, what = ClassList(*(listed or _named(len(written), BINARY == written))), _listing(written)
        listed, counted = known._replace(values=written), listed is None and written != BINARY
        meaning = "background and foreground" if written == BINARY else "a class each, from 0 on"
        notes.append(f"{masks} holds {what} alone: {meaning}")
    else:
        listed, counted = listed or _counted(values, masks), listed is None
    names, palette, void, of_classes = listed
    remap: Tensor | None = None if void is None or void == VOID else _remap(void, VOID)
    if of_classes is not None:
        remap = _table(of_classes, VOID if void is None else void, values, masks)
    name = f"{root.resolve().name}/{split}"
    found = Dataset(name, names, palette, pairs, remap, unlabelled=without, notes=tuple(notes))
    return replace(found, counted=counted)


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
    _require(file.values is None or len(file.values) == len(set(file.values)) == len(names))
    return ClassList(names, palette, file.ignore_index, file.values)


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


def _written(values: tuple[int, ...], masks: Path) -> tuple[int, ...] | None:
    """Return the values that classes are written as, where they are grey levels and no ids; None if not.

    Raises:
        ValueError: They may be grey levels, and may be something else.
    """
    if values == BINARY:
        return values
    known = tuple(value for value in values if value != VOID)
    step = known[1] if len(known) > 2 else 0
    if step < FAR or len(known) > MOST_GREYS or known != tuple(range(0, step * len(known), step)):
        return None
    if VOID in values and known[-1] + step == VOID:
        raise ValueError(
            f"{masks} holds {_listing(values)} alone, evenly spaced, and {VOID} may be a class or void; name "
            f'the classes and their "values" in {masks.parent / "classes.json"}'
        )
    return known


def _listing(values: tuple[int, ...]) -> str:
    """Write values as "0, 85 and 170", the first few of many."""
    some = [str(value) for value in values[:MOST_GREYS]]
    return f"{', '.join(some[:-1])} and {some[-1]}" + (" ..." if len(values) > MOST_GREYS else "")


def _named(count: int, binary: bool) -> ClassList:
    """Name classes that nobody named."""
    names = ("background", "foreground") if binary else tuple(f"class_{index:02d}" for index in range(count))
    return ClassList(names, default_palette(count))


def _counted(values: tuple[int, ...], masks: Path) -> ClassList:
    """Count the classes from the values that masks hold.

    Raises:
        ValueError: There is none, or the values leave open what they are.
    """
    known = [value for value in values if value != VOID]
    if not known:
        raise ValueError(f"{masks} holds void ({VOID}) only; a mask must hold class ids 0, 1, ...")
    if len(known) == 2 and known[1] > 1:
        raise ValueError(
            f"{masks} holds the values {known[0]} and {known[1]} alone, no ids 0 and 1; give 0 and 255 for "
            f"two classes, or name all classes in {masks.parent / 'classes.json'}."
        )
    if known[-1] >= SPARSE * len(known):
        raise ValueError(
            f"{masks} holds {_listing(tuple(known))} alone, too far apart for class ids; name the classes "
            f'and their "values" in {masks.parent / "classes.json"}, or all {known[-1] + 1} if they are ids.'
        )
    return _named(known[-1] + 1, binary=False)


def _table(of_classes: tuple[int, ...], void: int, found: tuple[int, ...], masks: Path) -> Tensor:
    """Return the table from the values of masks to labels.

    Raises:
        ValueError: Masks hold other values too.
    """
    strange = tuple(value for value in found if value not in (*of_classes, void, VOID))
    if strange:
        raise ValueError(
            f"{masks} holds {_listing(strange)} too, and {masks.parent / 'classes.json'} has the values "
            f"{_listing(of_classes)}; give all, or ignore_index for void."
        )
    table = torch.full((256,), VOID, dtype=torch.uint8)
    for label, value in enumerate(of_classes):
        table[value] = label
    return table


def _remap(value: int, label: int) -> Tensor:
    """Return a table that gives one value another label."""
    remap = torch.arange(256, dtype=torch.uint8)
    remap[value] = label
    return remap
