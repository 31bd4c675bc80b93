"""Who should decide: the learned policy beside policies without training, at equal work.

Source: Verelst and Tuytelaars, "SegBlocks", TPAMI 2022, figure 10 (random, heuristic, learned).
Differs: every policy gets the same network, the same blocks and an exact budget that includes its own cost;
doubt of a coarse pass, an oracle and reduced images are there as well.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from foveal.evaluation.baselines import static
from foveal.evaluation.evaluate import Entry
from foveal.hub.checkpoint import Model
from foveal.methods import SegBlocks
from foveal.policies import create_policy
from studies.segblocks.entries import measured
from studies.segblocks.seeds import over_seeds
from studies.segblocks.study import Row, Rows, work_of
from studies.segblocks.workshop import Workshop, learned

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
"""Name in the table, policy, level of its look."""


def policies(workshop: Workshop) -> Rows:
    """Measure every policy, and reduced images, at the work of every target.

    Returns:
        Rows with policy, budget, work, gmacs (None for the oracle, whose decision is not counted), miou,
        miou_std, agreement, boundary_f, seeds; miou is None where the budget does not pay for the policy.
    """
    rows: Rows = []
    for target in workshop.targets():
        budget = work_of(target)
        repeats: list[Rows] = []
        absent: list[str] = []
        for seed in workshop.seeds():
            workshop.report(f"policies at work {budget:.2f}, seed {seed}")
            model = workshop.segblocks(target, seed)
            entries, absent = _entries(model, budget, workshop.size)
            entries.append(static(model.network, budget))
            repeats.append(measured(model.network, workshop.data, entries, timed=0))
        joined = [_row(row, budget) for row in over_seeds(repeats)]
        rows += joined[1:] if rows else joined  # the dense network is the same every time
        rows += [{"policy": name, "budget": round(budget, 4), "work": None, "miou": None} for name in absent]
    return rows


def draw_policies(rows: Rows, axes: Any) -> None:
    """Draw mIoU over work, a line per policy."""
    names = [name for name in dict.fromkeys(row["policy"] for row in rows) if name != "dense"]
    dense = next(row for row in rows if row["policy"] == "dense")
    for number, name in enumerate(names):
        ours = [row for row in rows if row["policy"] == name and row["miou"] is not None]
        works, quality = [row["work"] for row in ours], [100 * row["miou"] for row in ours]
        axes.plot(works, quality, "osD^v<>P*"[number % 9] + "-", label=name)
    axes.axhline(100 * dense["miou"], color="black", linestyle=":", label="dense")
    axes.set_xlabel("work, as a share of the dense network's")
    axes.set_ylabel("mIoU [%]")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _entries(model: Model, budget: float, size: tuple[int, int]) -> tuple[list[Entry], list[str]]:
    """Make the rows that the budget pays for, and name the others."""
    entries, absent = [], []
    for name, policy, look in CANDIDATES:
        make = partial(_method, model, policy, budget, look)
        if policy != "oracle" and make(None).least_work(size) > budget:
            absent.append(name)
        else:
            entries.append(Entry("segblocks", name, budget, make))
    return entries, absent


def _method(model: Model, policy: str, budget: float, look: int, target: Any) -> SegBlocks:
    """Make a method of two levels whose blocks are those of the model's own policy."""
    if policy == "learned":
        return learned(model, budget)
    assert model.policy is not None, "models of this part have a policy"
    given = (model.network, target) if policy == "oracle" else None
    tile = model.policy.block // 2
    return SegBlocks(model.network, create_policy(policy, budget, tile, 1, look, given))


def _row(row: Row, budget: float) -> Row:
    name = {"dense": "dense", "static": "reduced image"}.get(row["method"], row["policy"])
    kept = {
        key: row[key] for key in ("work", "gmacs", "miou", "miou_std", "agreement", "boundary_f", "seeds")
    }
    kept["gmacs"] = None if name == "oracle" else kept["gmacs"]
    return {"policy": name, "budget": 1.0 if name == "dense" else round(budget, 4), **kept}
