"""What was measured for a trained network, stored as JSON beside its weights.

`MODEL.KIND.json` lies in the folder of `MODEL.safetensors`; where that cannot be written, in the folder for
what is measured once per machine. The fingerprint of the weights says which network it belongs to.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from foveal.hub.checkpoint import Model
from foveal.storage.reading import refusal
from foveal.storage.schema import read_as
from foveal.storage.store import Record, Store


class NotMeasured(ValueError):
    """Nothing was found for the weights of a model."""


class Unusable(ValueError):
    """What was found for a model is damaged."""


class OfWeights(Protocol):
    """A record that says which weights it belongs to."""

    @property
    def weights(self) -> str:
        """Fingerprint of the network's weights."""
        ...


T = TypeVar("T", bound=OfWeights)


def _as_it_is(record: Record) -> Record:
    return record


@dataclass(frozen=True)
class Beside(Generic[T]):
    """Records of one kind.

    Attributes:
        kind: What it is, in a word; part of the file's name.
        form: What a record becomes; its fields say what is allowed.
        command: What makes it.
        missing: What to do where there is none; `{model}` stands for the model's file or name.
        check: Refuses what the fields do not: raises ValueError.
        version: Of what the records hold.
        complete: Adds to a record what older ones do not say.
    """

    kind: str
    form: type[T]
    command: str
    missing: str
    check: Callable[[T], object]
    version: int = 1
    complete: Callable[[Record], Record] = _as_it_is

    def save(self, model: Model, weights: str, record: Record) -> Path:
        """Write a record beside the model, or where this machine keeps measurements; return the file.

        Raises:
            ValueError: It cannot be written, or what is beside the model cannot be replaced.
        """
        for store, key in self._places(model, weights):
            try:
                return store.write(key, record)
            except OSError as error:
                problem = error
                if store.path(key).is_file():  # it would be found first, and be the one that is used
                    break
        raise ValueError(f"what was found cannot be written ({problem}); give --out with another folder")

    def load(self, model: Model) -> T:
        """Read what was found for a model.

        Raises:
            NotMeasured: Nothing was found yet, or for other weights.
            Unusable: What is there is damaged, and the other place has nothing either.
        """
        weights = model.weights
        problems: list[ValueError] = []
        for store, key in self._places(model, weights):
            try:
                if store.path(key).is_file():
                    found = self._read(store, key, weights)
                    for problem in problems:
                        warnings.warn(f"{problem}; {store.path(key)} is used", RuntimeWarning, stacklevel=2)
                    return found
            except ValueError as error:  # the other place may hold a good one
                problems.append(error)
        problems.sort(key=lambda problem: not isinstance(problem, Unusable))
        missing = self.missing.format(name=model.name, model=model.file or model.name)
        raise problems[0] if problems else NotMeasured(missing)

    def find(self, model: Model) -> T | None:
        """Read what was found for a model; None if nothing was, or for other weights.

        Raises:
            Unusable: What is there is damaged: without it, other settings would be used unnoticed.
        """
        file, cache = model.file, Store(self.kind, self.version).place
        if not cache.is_dir() and not (file and file.with_suffix(f".{self.kind}.json").exists()):
            return None  # before the weights are read
        try:
            return self.load(model)
        except NotMeasured:
            return None

    def _places(self, model: Model, weights: str) -> list[tuple[Store, str]]:
        """Return the stores that may hold it, with its key: beside the model, then in the cache."""
        file = model.file
        beside = [(Store(self.kind, self.version, file.parent), f"{file.stem}.{self.kind}")] if file else []
        return [*beside, (Store(self.kind, self.version), weights)]

    def _read(self, store: Store, key: str, weights: str) -> T:
        path, problem, again = store.path(key), store.problem(key), f"run {self.command} again"
        if problem:
            raise Unusable(f"{problem}; {again}")
        try:
            found = read_as(self.form, self.complete(store.read(key) or {}), path, self.kind)
            self.check(found)
        except ValueError as error:
            said = str(error) if str(path) in str(error) else refusal(path, self.kind, error)
            raise Unusable(f"{said}; {again}") from None
        if found.weights != weights:
            raise NotMeasured(f"{path}: belongs to other weights; {again}")
        return found
