"""The stages of a network and their heads as a program: one native call each, on whole images or tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, fx

from foveal.exits import Stages
from foveal.exits.joined import exit_name, join_heads
from foveal.geometry.layout import Layout
from foveal.kernels.build import tell
from foveal.program.parts import Cells, Cut, PartedProgram, compile_parts
from foveal.tiles import TileTensor

SIZE = "size of the images"
"""Name of what is kept beside the maps."""


@runtime_checkable
class RunsInStages(Protocol):
    """A method that runs a network stage by stage, layer by layer or as parts of a program.

    Attributes:
        compiled: The stages as a program; None while they run layer by layer.
    """

    compiled: CompiledStages | None

    @property
    def compiled_from(self) -> tuple[object, ...]:
        """What the program follows from, besides the network: methods for which it is equal share one."""

    def compile(self) -> None:
        """Let every stage run as a part of a program; layers must be joined.

        Raises:
            NotCompiled: An operation has no step, or a stage leaves something else than maps of the image.
        """


class CompiledStages:
    """Runs the stages of a network and their heads as parts of a program.

    Args:
        stages: The network with joined layers, in stages.
        heads: What runs at the end of every stage but the last, layers joined; None for nothing.

    Raises:
        NotCompiled: An operation has no step, or a stage leaves something else than maps of the image.
    """

    def __init__(self, stages: Stages, heads: Sequence[fx.GraphModule | None]) -> None:
        traced, ends = join_heads(stages, heads)
        network = stages.owner
        names = tuple(getattr(network, "dense_modules", ()))
        multiple = int(getattr(network, "multiple", 1))
        cuts = [Cut(end.after, end.kept) for end in ends]
        channels = int(getattr(network, "in_channels", 3))
        self.program: PartedProgram = compile_parts(traced, cuts, names, multiple, channels)
        self._image, count = stages.inputs[0].name, len(stages)
        self._ends = [stages.end_of(stage).name for stage in range(count)]
        has_head = [stage < len(heads) and heads[stage] is not None for stage in range(count)]
        # A part per stage, and one more behind those that have a head.
        self._stages = [stage + sum(has_head[:stage]) for stage in range(count)]
        self._heads = {stage: self._stages[stage] + 1 for stage in range(count) if has_head[stage]}
        self._later = [
            {self._ends[-1]}.union(*(part.given for part in self.program.parts[number + 1 :]))
            for number in self._stages
        ]

    def start(self, image: Tensor | TileTensor) -> dict[str, Any]:
        """Return what the first stage is given: images [N, C, H, W], or their tiles."""
        size = image.layout.size if isinstance(image, TileTensor) else tuple(image.shape[2:])
        return {self._image: image, SIZE: size}

    def run(self, stage: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Run a stage on what the one before it has left; return what is left then."""
        known = {**values, **self._run(self._stages[stage], values)}
        return {name: value for name, value in known.items() if name == SIZE or name in self._later[stage]}

    def reads(self, stage: int) -> set[str]:
        """Return the names of what a stage reads of what earlier ones, or the image, have left."""
        return set(self.program.parts[self._stages[stage]].given)

    def at(self, stage: int, values: Mapping[str, Any]) -> Any:
        """Return the map at the end of a stage, from what it left; the logits after the last one."""
        return values[self._ends[stage]]

    def answer(self, stage: int, values: Mapping[str, Any]) -> Any:
        """Return the logits at the end of a stage, of its head or after the last one of the network."""
        if stage not in self._heads:
            return self.at(stage, values)
        return self._run(self._heads[stage], values)[exit_name(stage)]

    def _run(self, part: int, values: Mapping[str, Any]) -> dict[str, Any]:
        read = {name: values[name] for name in self.program.parts[part].given}
        some = next(iter(read.values()))
        layout = some.layout if isinstance(some, TileTensor) else None
        images = layout.images if layout is not None else len(some)
        given = {name: _array(value) for name, value in read.items()}
        cells = _cells(layout, images, values[SIZE], self.program.coarsest_stride)
        made, macs = self.program.run(part, cells, given, torch.get_num_threads())
        tell("convolution", macs)
        return {name: _map(array, layout) for name, array in made.items()}


def _cells(layout: Layout | None, images: int, size: tuple[int, int], tile: int) -> Cells:
    if layout is None:
        return Cells(images, size, tile)
    levels = torch.where(layout.owner >= 0, layout.level[layout.owner.clamp(min=0)], -1)
    return Cells(images, size, layout.tile, levels.to(torch.int8).numpy(), len(layout.level))


def _array(value: Tensor | TileTensor) -> Any:
    tiles = value.tiles if isinstance(value, TileTensor) else value
    return tiles.detach().permute(0, 2, 3, 1).contiguous().numpy()


def _map(array: Any, layout: Layout | None) -> Tensor | TileTensor:
    found = torch.from_numpy(array).permute(0, 3, 1, 2)
    return found if layout is None else TileTensor(found, layout)
