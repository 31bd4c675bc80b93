"""Who should decide: the learned policy beside policies without training, at equal work.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, figure 10 (random, heuristic, learned).
Differs: every policy gets the same network, the same blocks and an exact budget that includes its own cost;
uncertainty of a coarse pass, an oracle and reduced images are there as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from foveal.evaluation.baselines import static
from foveal.evaluation.evaluate import evaluate
from foveal.evaluation.rows import EvalRow
from foveal.evaluation.tally import Entry
from foveal.hub.checkpoint import Model
from foveal.methods import Dense, SegBlocks
from foveal.policies import PolicyNet, create_policy
from studies.segblocks.experiment import Experiment
from studies.segblocks.learned import learned
from studies.segblocks.networks import Networks
from studies.segblocks.seeds import SeedsRow, over_seeds
from studies.segblocks.study import work_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CANDIDATES: tuple[tuple[str, str, int], ...] = (
    ("learned", "learned", 0),
    ("random", "random", 0),
    ("centre", "centre", 0),
    ("detail", "detail", 0),
    ("entropy, look at a quarter", "entropy", 2),
    ("entropy, look at a half", "entropy", 1),
    ("weighted entropy, look at a quarter", "weighted_entropy", 2),
    ("oracle", "oracle", 0),
)
"""Name in the table, policy, level of its coarse pass."""


@dataclass(frozen=True, kw_only=True)
class PolicyRow:
    """A policy at a budget over seeds; see `SeedsRow`.

    Attributes:
        gmacs: Work [GMAC]; None for the oracle, whose decision is not counted.
    """

    policy: str
    budget: float
    work: float
    gmacs: float | None
    miou: float
    miou_std: float | None
    agreement: float
    boundary_f: float | None
    seeds: int


@dataclass(frozen=True)
class UnaffordableRow:
    """A policy that the budget does not pay for."""

    policy: str
    budget: float
    work: None = None
    miou: None = None


def run(networks: Networks) -> list[PolicyRow | UnaffordableRow]:
    """Measure every policy, and reduced images, at the work of every target; the dense network once."""
    rows: list[PolicyRow | UnaffordableRow] = []
    for target in networks.targets():
        budget = work_of(target)
        repeats: list[list[EvalRow]] = []
        absent: list[str] = []
        for seed in networks.seeds():
            networks.report(f"policies at work {budget:.2f}, seed {seed}")
            model = networks.segblocks(target, seed)
            entries, absent = _entries(model, budget, networks.images.size)
            entries.append(static(model.network, budget))
            repeats.append(evaluate(Dense(model.network).eval(), networks.images.evaluated, entries, timed=0))
        joined = [_row(row, budget) for row in over_seeds(repeats)]
        rows += joined[1:] if rows else joined  # the dense network is the same every time
        rows += [UnaffordableRow(name, round(budget, 4)) for name in absent]
    return rows


def draw(rows: list[PolicyRow | UnaffordableRow], axes: Axes) -> None:
    """Draw mIoU over work, a line per policy."""
    found = [row for row in rows if isinstance(row, PolicyRow)]
    names = [name for name in dict.fromkeys(row.policy for row in found) if name != "dense"]
    dense = next(row for row in found if row.policy == "dense")
    for number, name in enumerate(names):
        ours = [row for row in found if row.policy == name]
        works, quality = [row.work for row in ours], [100 * row.miou for row in ours]
        axes.plot(works, quality, "osD^v<>P*"[number % 9] + "-", label=name)
    axes.axhline(100 * dense.miou, color="black", linestyle=":", label="dense")
    axes.set_xlabel("work, as a share of the dense network's")
    axes.set_ylabel("mIoU [%]")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _entries(model: Model, budget: float, size: tuple[int, int]) -> tuple[list[Entry], list[str]]:
    """Make the entries that the budget pays for, and name the others."""
    entries, absent = [], []
    for name, policy, level in CANDIDATES:
        make = partial(_method, model, policy, budget, level)
        if policy != "oracle" and make(None).least_work(size) > budget:
            absent.append(name)
        else:
            entries.append(Entry("segblocks", name, budget, make))
    return entries, absent


def _method(model: Model, policy: str, budget: float, level: int, target: Tensor | None) -> SegBlocks:
    """Make a method of two levels whose blocks are those of the model's own policy."""
    if policy == "learned":
        return learned(model, budget)
    net = model.part(PolicyNet)
    assert net is not None, "models of this experiment have a policy"
    given = (model.network, target) if policy == "oracle" and target is not None else None
    tile = net.block // 2
    return SegBlocks(model.network, create_policy(policy, budget, tile, 1, level, given))


def _row(row: SeedsRow, budget: float) -> PolicyRow:
    name = {"dense": "dense", "static": "reduced image"}.get(row.method, row.policy)
    return PolicyRow(
        policy=name,
        budget=1.0 if name == "dense" else round(budget, 4),
        work=row.work,
        gmacs=None if name == "oracle" else row.gmacs,
        miou=row.miou,
        miou_std=row.miou_std,
        agreement=row.agreement,
        boundary_f=row.boundary_f,
        seeds=row.seeds,
    )


EXPERIMENT = Experiment(
    "Who decides (figure 10)",
    "The same network and blocks, two levels, equal work with the decision's own cost in it; a dash "
    "where the budget does not pay for the look and the cheapest plan. The oracle knows the labels: no "
    "policy, but a bound; its decision is not counted.",
    run,
    (draw,),
)
