"""Compile a network: its fused graph becomes a flat list of steps over numbered maps."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from foveal.fusion import CannotFuse, fuse
from foveal.fusion.layers import Convolve
from foveal.fusion.nodes import CLAMPS
from foveal.program.builder import Builder, NotCompiled
from foveal.program.layers import add_convolution, add_transposed
from foveal.program.pyramid import add_pyramid
from foveal.program.run import Program
from foveal.program.spec import ADD, AFFINE, CONCAT, ENLARGE, MAX_POOL, REPEAT

ADDITIONS = {operator.add, torch.add, "add"}
ODD = (75, 101)
"""Size of the image that a compiled network is compared on [px]: no side is a multiple of a stride."""
MOST_CHANNELS = 64
TOLERANCE = 1e-3
"""Difference from the network, as a share of the largest logit, above which compiling has failed."""


def compile_network(
    network: nn.Module, dense_modules: tuple[str, ...] | None = None, multiple: int = 1
) -> Program:
    """Compile a network from images [N, C, H, W] in 0..1 to logits [N, K, h, w].

    Args:
        network: It is taken as in evaluation, and not changed.
        dense_modules: Submodules that need the whole map, by name; the network's `dense_modules` if absent.
        multiple: Sides of images must be multiples of it [px].

    Raises:
        NotCompiled: An operation has no step, or the program's answer is another one; the message says which.
        RuntimeError: The C kernels are not available.
    """
    names = _dense_modules(network, dense_modules)
    try:
        return compile_fused(fuse(network, names), names, multiple)
    except CannotFuse as error:
        raise NotCompiled(str(error)) from None


def compile_fused(
    fused: nn.Module, dense_modules: tuple[str, ...] | None = None, multiple: int = 1
) -> Program:
    """Compile what `foveal.fuse` returned; as `compile_network` otherwise.

    Args:
        fused: It is not changed.
        dense_modules: Submodules that need the whole map, by name; the network's `dense_modules` if absent.
        multiple: Sides of images must be multiples of it [px].

    Raises:
        NotCompiled: An operation has no step, or the program's answer is another one; the message says which.
        RuntimeError: The C kernels are not available.
    """
    compiler = _Compiler(fused, _dense_modules(fused, dense_modules), multiple)  # type: ignore[arg-type]
    program = Program(compiler.compile())
    _compare(fused, program, multiple)
    return program


def _dense_modules(network: nn.Module, names: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(getattr(network, "dense_modules", ()) if names is None else names)


@torch.no_grad()
def _compare(network: nn.Module, program: Program, multiple: int) -> None:
    size = [side - side % -multiple for side in ODD]
    image = torch.rand(1, program.channels, *size, generator=torch.Generator().manual_seed(0))
    expected = network(image).permute(0, 2, 3, 1).numpy()
    found = program.run(image.numpy(), threads=1, logits=True).logits
    assert found is not None
    if found.shape != expected.shape or not abs(found - expected).max() <= TOLERANCE * abs(expected).max():
        raise NotCompiled(
            f"the program of {type(network).__name__} gives another answer than the network on an image of "
            f"{size[0]}x{size[1]} px; it does something that depends on the image's size"
        )


def _image_channels(traced: fx.GraphModule) -> int:
    """Find how many channels images have: what the first layer takes; 3 where that is no convolution.

    Raises:
        NotCompiled: They are more than programs take.
    """
    image = next(node for node in traced.graph.nodes if node.op == "placeholder")
    layers = [traced.get_submodule(str(user.target)) for user in image.users if user.op == "call_module"]
    found = [m.convolution.weight.shape[1] * m.convolution.groups for m in layers if isinstance(m, Convolve)]
    channels = found[0] if found else 3
    if channels > MOST_CHANNELS:
        raise NotCompiled(f"images have {channels} channels; programs take up to {MOST_CHANNELS}")
    return channels


class _Shapes(fx.Interpreter):
    """Notes the shape of every map."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    @torch.no_grad()
    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and note what comes out."""
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.shapes[n] = tuple(found.shape)
        return found


class _Compiler:
    """Walks through a fused graph; every node that is a map gets a number."""

    def __init__(self, traced: fx.GraphModule, dense_modules: tuple[str, ...], multiple: int) -> None:
        self.traced, self.multiple = traced, multiple
        self.dense_modules = dense_modules
        self.builder = Builder()
        self.maps: dict[fx.Node, int] = {}
        self.enlarged: set[int] = set()
        self.channels = _image_channels(traced)
        self.shapes: dict[fx.Node, tuple[int, ...]] | None = None

    def compile(self) -> Any:
        """Return the tables of the program."""
        given, out = -1, -1
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                if given >= 0:
                    raise NotCompiled("the network takes more than one input")
                given = self.maps[node] = self.builder.add_map(self.channels, 1)
            elif node.op == "output":
                out = self._map(node.args[0], "the output")
            elif node.op == "call_module":
                self.maps[node] = self._module(node)
            elif node.op in ("call_function", "call_method"):
                found = self._function(node)
                if found is not None:
                    self.maps[node] = found
            elif node.op != "get_attr":
                raise NotCompiled(f"a node '{node.op}' has no step")
        return self.builder.finish(given, out, self.builder.maps[out].channels, self.channels)

    def _map(self, node: Any, what: str) -> int:
        if not isinstance(node, fx.Node) or node not in self.maps:
            raise NotCompiled(f"{what} is no single map [N, C, H, W]")
        return self.maps[node]

    def _like(self, given: int, stride: int | None = None) -> int:
        source = self.builder.maps[given]
        return self.builder.add_map(source.channels, stride or source.stride)

    def _module(self, node: fx.Node) -> int:
        module, name = self.traced.get_submodule(str(node.target)), str(node.target)
        given = self._map(node.args[0], f"the input of '{name}'")
        if name in self.dense_modules:
            return add_pyramid(self.builder, name, module, given)
        if isinstance(module, Convolve):
            residual = self._map(node.args[1], f"the residual of '{name}'") if len(node.args) > 1 else None
            return add_convolution(self.builder, name, module.convolution, given, residual)
        if type(module) is nn.MaxPool2d:
            return self._pool(name, given, module)
        if type(module) is nn.Upsample and module.size is None:
            keywords = {"mode": module.mode, "align_corners": module.align_corners}
            return self._enlarge(name, given, {"scale_factor": module.scale_factor, **keywords})
        if type(module) is nn.ConvTranspose2d:
            return add_transposed(self.builder, name, module, given)
        if isinstance(module, nn.Hardtanh):
            return self._clamp(name, given, (module.min_val, module.max_val))
        if type(module) in CLAMPS:
            return self._clamp(name, given, CLAMPS[type(module)])
        raise NotCompiled(f"module '{name}' ({type(module).__name__}) has no step")

    def _pool(self, name: str, given: int, module: nn.MaxPool2d) -> int:
        values = (module.kernel_size, module.stride, module.padding, module.dilation)
        pairs = [v if isinstance(v, tuple) else (v, v) for v in values]
        (kernel, stride, padding, dilation) = pairs
        plain = stride[0] == stride[1] and dilation[0] == dilation[1] and not module.return_indices
        same = all(2 * p == d * (k - 1) for k, p, d in zip(kernel, padding, dilation, strict=True))
        blocks = padding == (0, 0) and kernel == stride and dilation == (1, 1)  # sides are compared later
        if not (plain and (same or blocks)) or (module.ceil_mode and not blocks):
            raise NotCompiled(
                f"max pooling '{name}' has neither an odd window padded to ceil(side / stride) nor windows "
                "side by side"
            )
        out = self._like(given, self.builder.maps[given].stride * stride[0])
        fields = dict(zip(("rows", "columns"), kernel, strict=True))
        fields |= dict(zip(("top", "left"), padding, strict=True))
        self.builder.add_step(name, MAX_POOL, given, out, stride=stride[0], dilation=dilation[0], **fields)
        return out

    def _clamp(self, name: str, given: int, limits: tuple[float, float]) -> int:
        out = self._like(given)
        self.builder.add_step(name, AFFINE, given, out, low=limits[0], high=limits[1])
        return out

    def _function(self, node: fx.Node) -> int | None:
        target: Any = node.target
        if target is getattr or (target is operator.getitem and node.args[0] not in self.maps):
            return None  # a size, which only crops look at
        if target is operator.getitem:
            return self._crop(node)
        if target is F.interpolate and len(node.args) == 1:
            given = self._map(node.args[0], f"the input of '{node.name}'")
            factor = node.kwargs.get("scale_factor") or self._factor(node)
            return self._enlarge(node.name, given, {**node.kwargs, "scale_factor": factor})
        if target in ADDITIONS and len(node.args) == 2 and not node.kwargs:
            return self._add(node)
        if target in (torch.cat, torch.concat):
            return self._concat(node)
        if target in CLAMPS:
            given = self._map(node.args[0], f"the input of '{node.name}'")
            return self._clamp(node.name, given, CLAMPS[target])
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        raise NotCompiled(f"operation '{name}' ({node.name}) has no step")

    def _crop(self, node: fx.Node) -> int:
        """Take a crop behind an enlargement for what it is: the map's own extent at its stride."""
        given, index = self.maps[node.args[0]], node.args[1]  # type: ignore[index]
        whole = slice(None)
        parts = index if isinstance(index, tuple) else (index,)
        spatial = all(isinstance(p, slice) and p.start is None and p.step is None for p in parts[2:])
        if parts[:2] != (whole, whole) or not spatial or given not in self.enlarged:
            raise NotCompiled(f"'{node.name}' indexes a map otherwise than to crop an enlarged one")
        return given

    def _factor(self, node: fx.Node) -> float:
        """Find by which factor a map is brought to a size, on an image that all strides divide; 0 for two."""
        if self.shapes is None:
            side = 2 * math.lcm(max(m.stride for m in self.builder.maps), self.multiple)
            noted = _Shapes(self.traced)
            noted.run(torch.zeros(1, self.channels, side, side))
            self.shapes = noted.shapes
        small, large = self.shapes[node.args[0]][2:], self.shapes[node][2:]  # type: ignore[index]
        factors = {after / before for before, after in zip(small, large, strict=True)}
        return factors.pop() if len(factors) == 1 else 0.0

    def _enlarge(self, name: str, given: int, k: Mapping[str, Any]) -> int:
        factor, stride = k.get("scale_factor"), self.builder.maps[given].stride
        if isinstance(factor, tuple | list) and len(set(factor)) == 1:
            factor = factor[0]
        kind = {"bilinear": ENLARGE, "nearest": REPEAT}.get(k.get("mode") or "nearest")
        fits = isinstance(factor, int | float) and float(factor).is_integer() and stride % int(factor) == 0
        if kind is None or not fits or k.get("align_corners") or k.get("antialias"):
            raise NotCompiled(f"'{name}' is no bilinear or nearest enlargement by a whole factor")
        out = self._like(given, stride // int(factor))  # type: ignore[arg-type]
        self.builder.add_step(name, kind, given, out, factor=int(factor))  # type: ignore[arg-type]
        self.enlarged.add(out)
        return out

    def _add(self, node: fx.Node) -> int:
        one, two = (self._map(a, f"a summand of '{node.name}'") for a in node.args)
        a, b = self.builder.maps[one], self.builder.maps[two]
        if (a.channels, a.stride) != (b.channels, b.stride):
            raise NotCompiled(f"'{node.name}' adds maps of different shapes")
        out = self._like(one)
        self.builder.add_step(node.name, ADD, one, out, other=two)
        return out

    def _concat(self, node: fx.Node) -> int:
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if dim not in (1, -3):
            raise NotCompiled(f"'{node.name}' joins maps along another dimension than the channels")
        given = [self._map(a, f"a part of '{node.name}'") for a in node.args[0]]  # type: ignore[union-attr]
        channels = [self.builder.maps[m].channels for m in given]
        out = self.builder.add_map(sum(channels), self.builder.maps[given[0]].stride)
        for k, m in enumerate(given):
            self.builder.add_step(f"{node.name}.{k}", CONCAT, m, out, at=sum(channels[:k]))
        return out
