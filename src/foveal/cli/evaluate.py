"""`foveal evaluate`: quality and cost over a labelled data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.frames import Frames, measure_frames
from foveal.cli.method_options import MethodsCommand, Settings, combinations, given_settings
from foveal.cli.model_options import ModelArgument, open_model
from foveal.cli.options import (
    DataOption,
    JsonOption,
    LimitOption,
    MaskOption,
    MethodOption,
    PrecisionOption,
    ThreadsOption,
    announce,
    counter,
    free_stems,
    given,
    make_folder,
    prepare,
)

if TYPE_CHECKING:
    from torch import Tensor

    from foveal.calibration.configure import Chosen
    from foveal.calibration.engine import Engine
    from foveal.calibration.profile import Risk
    from foveal.data.masks import Masks
    from foveal.data.pairs import Dataset
    from foveal.evaluation.tally import Entry
    from foveal.hub.checkpoint import Model
    from foveal.methods import MethodConfig


BaselineOption = Annotated[
    bool,
    typer.Option(
        "--baseline",
        help="Add controls at equal work: random tiles, and the whole image reduced; of a video, key frames, "
        "blocks by difference and at random, and, frame by frame, coarse to fine and the image reduced.",
    ),
]
VideoOption = Annotated[
    str | None,
    typer.Option(
        help="clip: the images in order are the frames of one video; static: a still camera is made of them; "
        "pan: one that turns."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(cls=MethodsCommand)(evaluate)


def evaluate(
    ctx: typer.Context,
    model: ModelArgument,
    data: DataOption,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    budget: Annotated[list[float] | None, typer.Option(help="Shares of the dense work; repeatable.")] = None,
    method: MethodOption = "segblocks",
    risk: Annotated[
        list[float] | None,
        typer.Option(help="Expected disagreements with the dense network to allow; repeatable."),
    ] = None,
    baseline: BaselineOption = False,
    precision: PrecisionOption = "f32",
    mask: MaskOption = None,
    video: VideoOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the labels of every image, by the last row.")
    ] = None,
    limit: LimitOption = None,
    timed: Annotated[int, typer.Option(min=0, help="Number of images to time; 0 for none.")] = 16,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Measure quality and cost over a labelled data set, the dense network first.

    Several values may follow one option: `--budget 0.25 0.4 0.6`. With --video methods remember the frame
    before, and flicker is measured: the share of pixels that change their label while the truth does not.
    """
    from foveal.calibration.configure import Asked, choose
    from foveal.calibration.engine import find_engine
    from foveal.calibration.profile import find_risk
    from foveal.data.masks import open_masks
    from foveal.evaluation.evaluate import evaluate as measure
    from foveal.methods import MethodConfig
    from foveal.reporting.evaluation_text import evaluation_table

    loaded = open_model(ctx, model)
    dataset = open_labelled(loaded, data, split)
    masks = None if mask is None else open_masks(mask)
    if risk:
        _check_risk(method)
    if out is not None:
        make_folder(out)
    budgets = budget or ([] if risk else [MethodConfig.budget])
    # What was found for the weights is looked up before layers are joined: it goes by their names.
    weights, risks = _weights(loaded), [find_risk(loaded, share) for share in risk or []]
    engine = find_engine(loaded, precision)
    if engine.warning:
        announce(engine.warning)
    asked = combinations(given_settings(ctx))
    entries = []
    for settings, share in product(asked, budgets):
        wish = Asked(method if given(ctx, "method") else None, engine.precision, settings, share)
        chosen = choose(loaded, wish, method)
        if chosen.why:
            announce(chosen.why)
        entries.append(entry(loaded, engine, chosen, share))
    entries += [_risky(engine, kept) for kept in risks]
    if video is not None:
        single = {"--risk": risk, "--mask": mask, "--out": out}
        how = Frames(video, budgets if baseline else [], timed, limit, json)
        return measure_frames(loaded, engine, dataset, entries, how.checked(single, threads))
    if baseline:
        works = [*budgets, *(round(kept.setting.work, 4) for kept in risks)]
        entries += _controls(loaded, engine, works, asked[0])
    entries = [replace(entry, weights=weights) for entry in entries]
    prepare(threads)
    wanted = None if masks is None else partial(_wanted, masks, dataset)
    rows = measure(engine.dense(), dataset, entries, timed, limit, counter("images"), wanted)
    if out is not None:
        _write_labels(entries, dataset, masks, out)
    if json:
        echo_json(rows)
    else:
        say(evaluation_table(rows))


def open_labelled(loaded: Model, data: str, split: str) -> Dataset:
    """Open the data set that a model is measured on, and say what there is to know about it.

    A data set whose classes nobody names has those of the model.

    Raises:
        ValueError: There is none, or it has other classes than the model.
    """
    from foveal.adaptive.opening import image_format
    from foveal.data.dataset import open_dataset

    dataset, classes = open_dataset(data, split, image_format(loaded)), loaded.card.classes
    for note in dataset.notes:
        announce(note)
    if dataset.counted and len(dataset.classes) <= len(classes):
        return dataset.named(classes)
    if len(dataset.classes) != len(classes):
        raise ValueError(
            f"{loaded.name} knows {len(classes)} classes and {dataset.name} has {len(dataset.classes)}; "
            "give a model that was trained on these classes"
        )
    return dataset


def _wanted(masks: Masks, dataset: Dataset, index: int) -> Tensor:
    """Return the pixels of an image of a data set that count [H, W]."""
    from foveal.data.raster import read_raster

    return masks.of(read_raster(dataset.pairs[index].image))


def _write_labels(entries: Sequence[Entry], dataset: Dataset, masks: Masks | None, out: Path) -> None:
    """Write what the last row says about every image, also about those without labels.

    The oracle, which looks at labels, has none for the others.
    """
    from foveal.data.image import save_labels
    from foveal.data.raster import read_raster
    from foveal.evaluation.evaluate import label

    files = [*(pair.image for pair in dataset.pairs), *dataset.unlabelled]
    for file, stem in zip(files, free_stems(files, out), strict=True):
        raster = read_raster(file)
        wanted = None if masks is None else masks.of(raster)
        labels = label(entries[-1], raster.image(dataset.reading), wanted)
        save_labels(labels, stem.with_name(f"{stem.name}_labels.png"), dataset.palette)
    announce(f"wrote the labels of {len(files)} images to {out}")


def _check_risk(method: str) -> None:
    """Check that a method keeps a risk that `foveal adapt` has found.

    Raises:
        ValueError: It does not, or there is none of that name.
    """
    from foveal.methods import METHODS
    from foveal.storage.names import find

    if not find(method, METHODS, "method").supports_risk:
        able = ", ".join(name for name, kind in METHODS.items() if kind.supports_risk)
        raise ValueError(f"--risk is kept by --method {able}, given {method}")


def entry(loaded: Model, engine: Engine, chosen: Chosen, budget: float) -> Entry:
    """Make a row of the evaluation, with what runs the network.

    What looks at the labels is made anew for every image.
    """
    from foveal.evaluation.tally import Entry
    from foveal.methods import Resources

    method, config = chosen.method, chosen.config
    policy = str(getattr(config, "policy", ""))
    if policy == "oracle":
        return Entry(
            method,
            policy,
            budget,
            lambda target: engine.make(method, config, Resources(labels=target)),
            tile=_cell(method, config),
            settings=config.settings,
        )
    made = engine.make(method, config, loaded.resources)
    cell, settings = _cell(method, config), config.settings
    return Entry(method, policy, budget, lambda target: made, tile=cell, settings=settings)


def _cell(method: str, config: MethodConfig) -> int:
    """Return the side of the cells of a mask [px]; 0 for a method that takes none."""
    from foveal.methods import METHODS

    return config.whole("tile") if METHODS[method].supports_masks else 0


def _risky(engine: Engine, risk: Risk) -> Entry:
    """Make a row for a risk, by what `foveal adapt` found."""
    from foveal.calibration.profile import METHOD
    from foveal.evaluation.tally import Entry

    name = "dense" if risk.setting.dense else METHOD
    dense = engine.dense()
    made = dense if risk.setting.dense else risk.mixed(engine.make(METHOD, risk.config), dense)
    tile = 0 if risk.setting.dense else risk.config.tile
    of_labels = risk.profile.risk_of == "labels"
    policy, make = risk.config.policy, lambda target: made
    settings = None if risk.setting.dense else risk.config.settings
    return Entry(name, policy, 1.0, make, risk.allowed, tile=tile, of_labels=of_labels, settings=settings)


def _controls(loaded: Model, engine: Engine, budgets: list[float], settings: Settings) -> list[Entry]:
    """Make rows of the same budgets that know nothing: tiles at random, and the whole image reduced."""
    from foveal.calibration.configure import Chosen, configure
    from foveal.evaluation.baselines import static
    from foveal.methods import SegBlocksConfig
    from foveal.methods.config import settings_of

    known, name = settings_of(SegBlocksConfig), "segblocks"
    random = {name: value for name, value in settings.items() if name in known} | {"policy": "random"}
    below = [share for share in dict.fromkeys(budgets) if share < 1]
    at_random = [Chosen(name, configure(loaded, name, share, random)) for share in below]
    return [
        *(entry(loaded, engine, chosen, chosen.config.budget) for chosen in at_random),
        *(static(engine.dense().dense(), share) for share in below),
    ]


def _weights(loaded: Model) -> Tensor | None:
    """Return the weights of the classes in the disagreement, as `foveal adapt` found them; None before."""
    import torch

    from foveal.calibration.profile import find_profile

    profile = find_profile(loaded)
    return None if profile is None else torch.tensor(profile.class_weights)
