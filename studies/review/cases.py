"""What the review compares: a method, its settings, and the network that it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from foveal.adaptive.opening import Reference, open_model
from foveal.calibration.configure import configure
from foveal.calibration.engine import Engine, find_engine
from foveal.evaluation.baselines import key_frames
from foveal.evaluation.tally import Entry
from foveal.methods import METHODS, AdaptiveSegmenter, Resources, TrainableSegmenter
from foveal.methods.parts import words_of
from studies.review.settings import Review


@dataclass(frozen=True)
class Case:
    """A line of the review, at every budget.

    Attributes:
        title: What it is called.
        method: Name in `foveal.methods.METHODS`.
        settings: Of the method, beside the budget; what is tuned or recommended otherwise.
        network: Field of `Review` that names its network.
        small: Field of `Review` that names the small network; empty for none.
        budgets: Budgets of its own, where it cannot spend as little as others; those of the review if absent.
        apart: Whether its network is of another kind than the others'.
        control: Whether it knows nothing, or more than can be known: no method, but what methods are held to.
    """

    title: str
    method: str
    settings: Mapping[str, object] = field(default_factory=dict)
    network: str = "network"
    small: str = ""
    budgets: tuple[float, ...] = ()
    apart: bool = False
    control: bool = False

    @property
    def kind(self) -> type[AdaptiveSegmenter]:
        """Class of the method."""
        return METHODS[self.method]

    @property
    def training(self) -> str:
        """What must be trained before it runs on a network that exists, in words."""
        if self.kind.needs is not None:
            return words_of(self.kind.needs)
        return "a small network" if self.small else "nothing"

    @property
    def trains(self) -> bool:
        """Whether recipes can train networks for it."""
        return issubclass(self.kind, TrainableSegmenter)


class Engines:
    """The networks of a review, each opened and compiled once.

    Args:
        review: The settings.
    """

    def __init__(self, review: Review) -> None:
        self.review = review
        self._known: dict[tuple[str, str], Engine] = {}

    def of(self, case: Case) -> Engine:
        """Return what runs the network of a case."""
        return self.find(case.network, case.small)

    def find(self, network: str, small: str = "") -> Engine:
        """Return what runs the network that a field of the settings names, with a small one beside it."""
        names = str(getattr(self.review, network)), str(getattr(self.review, small)) if small else ""
        if names not in self._known:
            model = open_model(Reference(names[0], trusted=True, small=names[1]))
            self._known[names] = find_engine(model)
        return self._known[names]


def entry_of(engine: Engine, case: Case, budget: float) -> Entry:
    """Make what measures a case at a budget; an oracle is made anew for the labels of every image."""
    config = configure(engine.model, case.method, budget, case.settings)
    policy = str(config.settings.get("policy", ""))
    if policy == "oracle":
        return Entry(
            case.title,
            policy,
            budget,
            lambda target: engine.make(case.method, config, Resources(labels=target)),
            settings=config.settings,
        )
    made = engine.make(case.method, config, engine.model.resources)
    return Entry(case.title, policy, budget, partial(_made, made), settings=config.settings)


def _made(method: AdaptiveSegmenter, target: Tensor) -> AdaptiveSegmenter:
    """Return a method whatever the labels are."""
    return method


def budgets_of(case: Case, review: Review, engine: Engine, size: tuple[int, int]) -> list[float]:
    """Return the budgets of a case, without those that it cannot keep on images of `size` [px]."""
    asked = case.budgets or review.budgets
    settings = {name: value for name, value in case.settings.items() if value != "oracle"}
    config = configure(engine.model, case.method, BELOW_ALL, settings)
    least = engine.make(case.method, config, engine.model.resources).least_work(size)
    return [budget for budget in asked if budget >= least]


BELOW_ALL = 0.999
"""Budget at which a method still decides."""
ORACLE = "SegBlocks, oracle"
RANDOM = "SegBlocks, at random"
KEY_FRAMES = "key frames"
SHARED: Sequence[Case] = (
    Case("SegBlocks, by entropy", "segblocks", {"policy": "entropy"}),
    Case(RANDOM, "segblocks", {"policy": "random"}, control=True),
    Case(ORACLE, "segblocks", {"policy": "oracle"}, control=True),
    Case("coarse to fine", "coarse_to_fine"),
    Case("model selection, itself reduced", "model_select"),
)
"""Methods that any network runs as it is."""
STREET: Sequence[Case] = (
    *SHARED,
    Case("model selection", "model_select", small="small"),
    Case("MESS, one exit", "mess", network="exits", budgets=(0.45, 0.55, 0.75)),
    Case("Layer Cascade", "layer_cascade", {"exits": "3"}, network="exits", budgets=(0.6, 0.75, 0.9)),
    Case("DynConv", "dynconv", network="gates", budgets=(0.6, 0.75, 0.9)),
    Case("NRD, patches", "dynamic_decoder", network="patches", budgets=(0.72, 0.75)),
    Case("PointRend, points", "dynamic_decoder", network="points", budgets=(0.75, 0.85, 0.94)),
    Case("routing", "routing", network="lattice", apart=True),
    Case(
        "routing, one route for all",
        "routing",
        {"route": "usual"},
        network="lattice",
        apart=True,
        control=True,
    ),
)
FINE: Sequence[Case] = tuple(
    Case(case.title, case.method, case.settings, "weeds_network", control=case.control) for case in SHARED
)
FIRST = {"first_budget": 1.0}
VIDEO: Sequence[Case] = (
    Case("BlockCopy", "blockcopy", FIRST),
    Case("frame difference", "blockcopy", {**FIRST, "policy": "difference", "block_tiles": 1}, control=True),
    Case("blocks at random", "blockcopy", {**FIRST, "policy": "random", "block_tiles": 1}, control=True),
    Case("coarse to fine in time", "video_coarse_to_fine"),
    Case("coarse to fine, frame by frame", "coarse_to_fine"),
)


def keys_of(engine: Engine, budget: float) -> Entry:
    """Make what measures key frames whose answers move with the picture."""
    found = key_frames(engine.dense().dense(), budget, shift=True)
    return Entry(KEY_FRAMES, found.policy, found.budget, found.make)
