"""`foveal reproduce`: the tables and figures of a paper, or the review of all methods, on this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveal.cli.errors import echo_json, say
from foveal.cli.options import Several, announce, given, make_folder, parse_size, prepare
from foveal.cli.segment import JsonOption, ThreadsOption
from foveal.storage.names import find

if TYPE_CHECKING:
    from studies.segblocks import Outcome, Tools

CAMVID = "camvid:data/camvid"
"""Data set that is used if its folder is there and no other is named."""
PAPERS = ("segblocks", "review")
REVIEW = "review"
ITS_OWN = ("data", "split", "limit", "quick", "again", "out", "parts", "threads", "json", "paper")
"""Options of the review; the others are about trainings."""
QUICK: dict[str, Any] = {
    **{"network": "swiftnet_nano", "scale": (256, 384), "limit": 16, "timed": 2},
    **{
        "dense_steps": 60,
        "policy_steps": 30,
        "policy_shape": (16, 4),
        "batch": 4,
        "crop": 192,
        "quick": True,
    },
}
"""Settings of a brief study of everything."""
FAILED = 1
PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the package; in a checkout it is `src/foveal`."""


def add_to(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(cls=Several)(reproduce)


def reproduce(
    ctx: typer.Context,
    paper: Annotated[str, typer.Argument(help=f"Paper: {', '.join(PAPERS)}.")],
    parts: Annotated[str | None, typer.Option(help="Experiments to run, a,b,...; all if absent.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help=f"Labelled images, KIND:PATH; {CAMVID} if it is there, else street scenes."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split that is evaluated.")] = "test",
    model: Annotated[
        list[str] | None, typer.Option(help="Trained dense networks, several: seeds, architectures.")
    ] = None,
    segblocks: Annotated[
        list[str] | None, typer.Option(help="Models trained with a policy, several: targets, seeds.")
    ] = None,
    scale: Annotated[str | None, typer.Option(help="Height x width of images without labels.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of images that are evaluated.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training a policy here.")] = None,
    block: Annotated[int, typer.Option(min=32, help="Blocks of the policies trained here, in pixels.")] = 64,
    seeds: Annotated[int, typer.Option(min=1, help="Repeats of what is trained here.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Everything in minutes, hardly trained.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Run experiments anew that are there already.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/reproduce_PAPER[_quick] if absent.")] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Measure the tables and figures of a paper, beside the paper's own figures; or review all methods.

    Several values may follow one option: `--model a.safetensors b.safetensors`.
    """
    _check_paper(paper)
    checkout = str(find_checkout(paper, PACKAGE, Path.cwd()))
    if checkout not in sys.path:
        sys.path.append(checkout)
    if paper == REVIEW:
        _check_review(ctx)
        chosen = _Review(data, split, limit, parts, quick, again, out, threads, json)
        chosen.run(Path(checkout))
        return
    from studies.segblocks import Study, choose_experiments
    from studies.segblocks import reproduce as run

    names = choose_experiments(None if parts is None else [name for name in parts.split(",") if name])
    folder = out or Path("runs") / f"reproduce_{paper}{'_quick' if quick else ''}"
    settings: dict[str, Any] = {
        **(QUICK if quick else {}),
        **{
            "data": _data(data),
            "split": split,
            "models": tuple(model or ()),
            "segblocks": tuple(segblocks or ()),
        },
        **{"block": block, "seeds": seeds},
    }
    given = {"scale": scale and parse_size(scale), "limit": limit, "policy_steps": steps}
    settings |= {key: value for key, value in given.items() if value is not None}
    if not quick and not model:
        settings["models"] = ("camvid_rn18",)
    prepare(threads)
    make_folder(folder)
    outcome = run(Study(folder, **settings), _tools(), names, again, announce)
    _show(outcome, folder, json)
    if outcome.failed:
        raise typer.Exit(FAILED)


def _check_review(ctx: typer.Context) -> None:
    """Refuse options that are about trainings.

    Raises:
        ValueError: One is given.
    """
    wrong = [f"--{name}" for name in ctx.params if name not in ITS_OWN and given(ctx, name)]
    if wrong:
        raise ValueError(f"the review trains nothing and takes no {', '.join(wrong)}; leave that out")


@dataclass(frozen=True)
class _Review:
    """What a user asks of the review."""

    data: str | None
    split: str
    limit: int | None
    parts: str | None
    quick: bool
    again: bool
    out: Path | None
    threads: int | None
    json: bool

    def run(self, checkout: Path) -> None:
        """Measure all methods side by side; the networks are those of the checkout.

        Raises:
            ValueError: There is no scene of a name, or its networks are not there.
        """
        from studies.review import Review, review
        from studies.review.settings import brief, present
        from studies.segblocks import Outcome
        from studies.segblocks.record import check_plots

        folder = self.out or Path("runs") / f"reproduce_review{'_quick' if self.quick else ''}"
        check_plots()
        make_folder(folder)
        prepare(self.threads)
        asked = present(Review(folder, street=_data(self.data), split=self.split, limit=self.limit), checkout)
        names = None if self.parts is None else [name for name in self.parts.split(",") if name]
        asked = brief(asked) if self.quick else asked
        outcome = review(asked, Outcome(), names, self.again, announce, " ".join(["foveal", *sys.argv[1:]]))
        _show(outcome, folder, self.json)
        if outcome.failed:
            raise typer.Exit(FAILED)


def _check_paper(name: str) -> None:
    find(name, dict.fromkeys(PAPERS), "paper")


def find_checkout(paper: str, package: Path, working: Path) -> Path:
    """Return the folder that has the study of a paper as `studies/PAPER`.

    Args:
        paper: Name of the paper.
        package: Folder of the package; the `studies` of its checkout lie beside `src`.
        working: Folder that is searched next.

    Raises:
        ValueError: Neither place has the study, as where the package was installed from a wheel.
    """
    for place in (package.parent.parent, working):
        if (place / "studies" / paper / "__init__.py").is_file():
            return place
    raise ValueError(
        f"there is no folder studies/{paper}: studies are part of the repository and not of the wheel; clone "
        "the repository and run the command in the clone"
    )


def _data(spec: str | None) -> str:
    """Return the data set; empty for generated scenes."""
    if spec is not None:
        return spec
    return CAMVID if Path(CAMVID.partition(":")[2]).is_dir() else ""


def _tools() -> Tools:
    from foveal.reporting.pictures import draw_plan, overlay
    from studies.segblocks import Tools

    command = " ".join(["foveal", *sys.argv[1:]])
    return Tools(
        _train, lambda image, labels, palette: overlay(image, labels, palette, 0.7), draw_plan, command
    )


def _train(recipe: Path, folder: Path) -> Path:
    """Train what a recipe says; a run that was killed goes on."""
    from foveal.training.build import build_run, save_run
    from foveal.training.config import read_recipe
    from foveal.training.loop import train

    wanted = read_recipe(recipe)
    method, batches, schedule, dataset = build_run(wanted, folder)
    train(method, batches, schedule, folder, wanted.train.device)
    return save_run(wanted, folder, method, dataset)


def _show(outcome: Outcome, folder: Path, json: bool) -> None:
    if json:
        echo_json(
            {
                "out": str(folder),
                "index": str(outcome.index),
                "written": outcome.written,
                "kept": outcome.kept,
                "failed": outcome.failed,
            }
        )
        return
    for name, sentence in outcome.failed.items():
        say(f"foveal: {name} failed: {sentence}", err=True)
    say(f"{len(outcome.written)} parts written, {len(outcome.kept)} kept; see {outcome.index}")
