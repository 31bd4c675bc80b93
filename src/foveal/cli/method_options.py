"""Options of methods: every setting that a method declares is an option of every command that takes one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import typer

from foveal.cli.model_options import SMALL, ModelCommand
from foveal.cli.options import carried_options

GIVEN = "foveal.settings"
"""Where a context keeps the settings that were given."""

Settings = dict[str, object]
"""Values by name; lists of them where a command takes several."""


@dataclass(frozen=True)
class Declared:
    """A setting as the methods declare it.

    Attributes:
        kind: int, float or str.
        description: One line.
        methods: Names of the methods that have it.
        low: Least value.
        high: Largest value.
    """

    kind: type
    description: str
    methods: tuple[str, ...]
    low: float | None
    high: float | None


class MethodCommand(ModelCommand):
    """A command with an option for every setting of every method; methods are imported when it is used."""

    options: ClassVar[dict[str, Any]] = {**ModelCommand.options, **SMALL}
    repeatable = False
    """Whether several values may follow an option."""
    only = ""
    """The method whose settings are options; those of all methods if empty."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Add the options of the methods."""
        return [*super().get_params(ctx), *method_options(self.repeatable, self.only)]


class MethodsCommand(MethodCommand):
    """As `MethodCommand`; several values may follow an option, and every combination is meant."""

    repeatable = True


def given_settings(ctx: typer.Context) -> Settings:
    """Return the settings that were given on the command line, by name."""
    return dict(ctx.meta.get(GIVEN, {}))


def option_name(setting: str) -> str:
    """Return the option of a setting."""
    return "--" + setting.replace("_", "-")


def combinations(settings: Settings) -> list[Settings]:
    """Return every combination of settings that hold several values each."""
    several = [value if isinstance(value, list | tuple) else [value] for value in settings.values()]
    return [dict(zip(settings, values, strict=True)) for values in product(*several)]


def declared_settings() -> dict[str, Declared]:
    """Collect the settings of all methods; one name means the same everywhere."""
    from foveal.methods import METHODS
    from foveal.methods.config import settings_of

    found: dict[str, Declared] = {}
    for method, kind in METHODS.items():
        hints = get_type_hints(kind.Config)
        for name, field in settings_of(kind.Config).items():
            plain = next((k for k in get_args(hints[name]) if k is not type(None)), hints[name])
            told = field.metadata
            known = found.get(name) or Declared(plain, told["description"], (), told["low"], told["high"])
            found[name] = replace(known, methods=(*known.methods, method))
    return found


def method_options(repeatable: bool, only: str = "") -> list[Any]:
    """Make the options as typer parameters, of all methods or of one."""
    settings = {
        name: replace(each, methods=(only,)) if only else each
        for name, each in declared_settings().items()
        if not only or only in each.methods
    }
    options = _build(tuple(settings.items()), repeatable)
    return list(options)


@cache
def _build(settings: tuple[tuple[str, Declared], ...], repeatable: bool) -> tuple[Any, ...]:
    return tuple(carried_options({name: _annotation(each, repeatable) for name, each in settings}, GIVEN))


def _annotation(setting: Declared, repeatable: bool) -> Any:
    exact: Any = setting.kind if setting.kind is int else float
    low, high = (None if value is None else exact(value) for value in (setting.low, setting.high))
    text = f"{setting.description} ({', '.join(setting.methods)})"
    plain = text.replace("[", "(").replace("]", ")")  # brackets would be read as markup
    option = typer.Option(help=plain, show_default=False, min=low, max=high)
    kind: Any = list[setting.kind] if repeatable else setting.kind  # type: ignore[name-defined]
    return Annotated[kind | None, option]
