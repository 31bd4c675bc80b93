"""`foveal evaluate`: quality and cost over a labelled data set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import echo_json
from foveal.cli.options import Several
from foveal.cli.progress import counter

if TYPE_CHECKING:
    from torch import nn

    from foveal.calibration.profile import Risk
    from foveal.evaluation.evaluate import Entry
    from foveal.hub.checkpoint import Model

DEFAULT_BUDGET = 0.4


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command(cls=Several)(evaluate)


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundled model, .safetensors file or folder of a run.")],
    data: Annotated[str, typer.Option(help="camvid:PATH, cityscapes:PATH, mapillary:PATH or folder:PATH.")],
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    budget: Annotated[list[float] | None, typer.Option(help="Shares of the dense work; repeatable.")] = None,
    method: Annotated[str, typer.Option(help="How it adapts; see `foveal methods`.")] = "segblocks",
    policy: Annotated[list[str] | None, typer.Option(help="What decides; repeatable.")] = None,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Side of a tile in pixels; the model's if absent.")
    ] = None,
    coarsest: Annotated[int | None, typer.Option(min=0, max=6, help="Coarsest level.")] = None,
    look: Annotated[int | None, typer.Option(min=0, max=6, help="Level of the first look.")] = None,
    risk: Annotated[
        list[float] | None, typer.Option(help="Disagreements with dense to allow; repeatable.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Controls of equal work: random, and everything reduced.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first images only.")] = None,
    timed: Annotated[int, typer.Option(min=0, help="Images to time; 0 for none.")] = 16,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the processor to use.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure quality and cost over a labelled data set, the dense network first.

    Several values may follow one option: `--budget 0.25 0.4 0.6`.
    """
    from foveal.calibration.profile import find_risk
    from foveal.cost import keep_memory
    from foveal.data.dataset import open_dataset
    from foveal.evaluation.evaluate import evaluate as measure
    from foveal.fusion import faster
    from foveal.hub.checkpoint import load_model
    from foveal.reporting.evaluation_text import evaluation_table

    loaded, dataset = load_model(model), open_dataset(data, split)
    if len(dataset.classes) != len(loaded.card.classes):
        raise ValueError(
            f"{model} knows {len(loaded.card.classes)} classes and {data} has {len(dataset.classes)}; give a "
            "model that was trained on these classes"
        )
    settings = (tile, coarsest, look)
    if risk and method != "coarse_to_fine":
        raise ValueError(f"--risk is kept by --method coarse_to_fine, given {method}")
    budgets = budget or ([] if risk else [DEFAULT_BUDGET])
    names: list[str | None] = [*policy] if policy else [None]
    # What was found for the weights is looked up before layers are joined: it goes by their names.
    weights, risks = _weights(loaded), [find_risk(loaded, share) for share in risk or []]
    network = faster(loaded.network)
    entries = [entry(loaded, network, method, name, share, settings) for name in names for share in budgets]
    entries += [_risky(network, kept) for kept in risks]
    if baseline:
        works = [*budgets, *(round(kept.setting.work, 4) for kept in risks)]
        entries += _controls(loaded, network, works, settings)
    entries = [replace(entry, weights=weights) for entry in entries]
    keep_memory()
    use_threads(threads)
    rows = measure(network, dataset, entries, timed, limit, counter("images"))
    if json:
        echo_json(rows)
    else:
        typer.echo(evaluation_table(rows))


Levels = tuple[int | None, int | None, int | None]
"""Tile, coarsest level and level of the first look; the model's own where absent."""


def entry(
    loaded: Model, network: nn.Module, method: str, policy: str | None, budget: float, settings: Levels
) -> Entry:
    """A row of the evaluation, with the network that runs; the oracle is made anew for every image."""
    from foveal.cli.segment import make_request
    from foveal.evaluation.evaluate import Entry
    from foveal.methods import METHODS, SegBlocks
    from foveal.policies import create_policy

    if method not in METHODS:
        raise ValueError(f"no method named '{method}'; available: {', '.join(METHODS)}")
    asked = make_request(loaded, method, policy, budget, settings)
    if policy == "oracle":
        levels = (asked.tile, asked.coarsest, asked.look)
        return Entry(
            method,
            policy,
            budget,
            lambda target: SegBlocks(network, create_policy(policy, budget, *levels, (network, target))),
        )
    made = METHODS[method].on_request(network, asked)
    return Entry(method, asked.policy, budget, lambda target: made)


def _risky(network: nn.Module, risk: Risk) -> Entry:
    """A row for a risk, by what `foveal adapt` found."""
    from foveal.evaluation.evaluate import Entry
    from foveal.methods import METHODS

    name = "dense" if risk.setting.dense else "coarse_to_fine"
    made = METHODS[name].on_request(network, risk.request)
    return Entry(name, risk.fit.policy, 1.0, lambda target: made, risk.allowed)


def _controls(loaded: Model, network: nn.Module, budgets: list[float], settings: Levels) -> list[Entry]:
    """Rows of the same budgets that know nothing: tiles at random, and the whole image reduced."""
    from foveal.evaluation.baselines import static

    below = [share for share in dict.fromkeys(budgets) if share < 1]
    return [
        *(entry(loaded, network, "segblocks", "random", share, settings) for share in below),
        *(static(network, share) for share in below),
    ]


def _weights(loaded: Model) -> Any:
    """Weights of the classes in the disagreement, as `foveal adapt` found them; None before."""
    import torch

    from foveal.calibration.profile import find_fit

    fit = find_fit(loaded)
    return None if fit is None else torch.tensor(fit.class_weights)


def use_threads(threads: int | None) -> None:
    """Set the number of threads, if one is given."""
    import torch

    if threads:
        torch.set_num_threads(threads)
