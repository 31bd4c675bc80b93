"""What an experiment is: a table or a figure of the paper that is measured, stored and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from matplotlib.axes import Axes

    from studies.segblocks.networks import Networks

R = TypeVar("R", bound="DataclassInstance")


@dataclass(frozen=True)
class Experiment(Generic[R]):
    """A table or a figure of the paper; its rows are frozen dataclasses (see `rows.py`).

    Attributes:
        title: Heading, with the paper's number.
        note: What is compared and how to read it.
        run: Measures with the networks and images of a study.
        draws: Draw the rows, each on axes of its own; none if the experiment writes its own picture.
        paper: The paper's figures, as rows.
        table: Makes the rows that are printed from those that are stored.
    """

    title: str
    note: str
    run: Callable[[Networks], list[R]]
    draws: tuple[Callable[[list[R], Axes], None], ...] = ()
    paper: Sequence[DataclassInstance] = ()
    table: Callable[[list[R]], Sequence[DataclassInstance]] = list
