"""Which modules of a network must see the whole map, so that the rest can run on tiles."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from foveal.adaptive.prepared import PreparedNetwork
from foveal.adaptive.preprocess import Preprocess
from foveal.adaptive.probe import NetworkShape
from foveal.compatibility import NetworkReport, check

LEAST = 256
"""Side of the image that a network is tried on, at least [px]."""
NETWORK = "network"
"""Name of the network within a prepared one."""


def fit_tiles(
    network: nn.Module,
    shape: NetworkShape,
    preprocess: Preprocess,
    declared: tuple[str, ...],
    tile: int,
    coarse_level: int,
) -> tuple[NetworkShape, tuple[str, ...]]:
    """Run a network on tiles, and find which of its modules must see the whole map.

    A network that takes images of any size, but is another one on tiles of a ragged image, gets images padded
    to multiples of its coarsest stride, or of that at the level of the first pass, unless the preprocessing
    says otherwise.

    Args:
        network: The network; it is left as it is.
        shape: What goes in and comes out.
        preprocess: What images need.
        declared: Names of modules that are known to need the whole map.
        tile: Side of a tile [px].
        coarse_level: Level of the first pass.

    Returns:
        The shape, its `multiple` chosen, and the names of the modules, declared ones among them.

    Raises:
        ValueError: It cannot run on tiles, or gives another answer there; the message says why.
    """
    stride = shape.coarsest_stride
    more = (stride, stride << coarse_level) if preprocess.multiple is None else ()
    tries = [shape, *(replace(shape, multiple=m) for m in more if m > shape.multiple)]
    for each in tries:
        prepared = PreparedNetwork(network, each, preprocess, declared)
        side = max(LEAST, 4 * tile)
        report = check(prepared, (side, side), tile, each.in_channels, each.multiple)
        if each is tries[-1] or (report.equal and not any(c.error for c in report.comparisons)):
            break
    return each, _named(type(network).__name__, report)


def _named(kind: str, report: NetworkReport) -> tuple[str, ...]:
    """Return the names of the modules that must see the whole map.

    Raises:
        ValueError: It cannot run on tiles, or gives another answer there.
    """
    inside = _inside(None if report.dense_modules is None else (*report.declared, *report.dense_modules))
    if inside is None:
        raise ValueError(f"{kind} cannot run on tiles: {_reason(report)}")
    if not report.equal:
        raise ValueError(
            f"{kind} gives another answer on tiles{_where(report)}; name the modules that look at the whole "
            "map in dense_modules, and print(foveal.check(network)) says more"
        )
    return inside


def _inside(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return names as the network has them; None if all of it would run dense, which saves nothing."""
    prefix = f"{NETWORK}."
    if names is None or not all(name.startswith(prefix) for name in names):
        return None
    return tuple(dict.fromkeys(name.removeprefix(prefix) for name in names))


def _reason(report: NetworkReport) -> str:
    """Say what has no rule, and what to do."""
    if not report.findings or report.all_dense:
        first = [f", from '{_path(f.module)}' ({f.operation.split()[0]}) on" for f in report.findings[:1]]
        why = "".join(first)
        return (
            f"all before its logits would have to see the whole map{why}, which saves nothing; run it dense"
        )
    shown = [replace(finding, module=_path(finding.module)) for finding in report.findings]
    worst = min(shown, key=lambda finding: bool(finding.module))  # one in a submodule could be mended
    where = f"'{worst.module}'" if worst.module else f"its own forward ({worst.kind})"
    return f"{worst.operation} in {where} has no rule; {worst.remedy}"


def _where(report: NetworkReport) -> str:
    """Say at which levels and sizes answers differ."""
    found = [c for c in report.comparisons if not (c.geometry or c.equal)]
    places = ", ".join(f"level {c.level} of {c.size[0]}x{c.size[1]} px" for c in found)
    errors = [*(c.error for c in found if c.error), *(run.error for run in report.mixed if run.error)]
    what = "; ".join((*((f"at {places}",) if places else ()), *errors[:1]))
    return f" ({what})" if what else ""


def _path(module: str) -> str:
    """Return the path of a module as the network has it; empty for the network itself."""
    return module.removeprefix(NETWORK).removeprefix(".")
