"""What a plan of mixed levels means for a network, without tiles: the judge of tiles.

One dense network a level runs over the whole image, all in lockstep: after every torch function each takes
over, where the plan has another level, what the others computed there (`foveal.compatibility.canvases`). That
is the definition of a mixed plan, for any function from maps to maps: PyTorch's own function runs on whole
maps, with its own padding and sides, and there are no tiles, halos, tables, rules or kernels. So tiles that
agree with it are proven right for this image and plan, rules and kernels included; a wrong rule for borders
between levels, which no level alone shows, is found. It costs about 1 + 1/4 + 1/16 dense networks.

Not proven is what both take for granted: that a dense module sees the image composed at its finest level, and
that a statistic of the image weighs samples by area.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from foveal.compatibility.canvases import Canvases, Maps
from foveal.compatibility.logits import first_line, logits_of
from foveal.compatibility.meeting import Meeting, NotJudged
from foveal.geometry.plan import Plan
from foveal.tiles.nested import leaves, map_leaves

OF_TILES = "_foveal_of_tiles"
"""Mark of a tensor that follows from the image; others, such as positions, are cut from the finest map."""


def judge(
    network: nn.Module, dense_modules: tuple[str, ...], images: Mapping[int, Tensor], plan: Plan
) -> Tensor:
    """Compute the logits of one image under a plan, one dense network a level.

    Args:
        network: Module from images to logits, in evaluation mode; it is left as it is.
        dense_modules: Names of its modules that see the whole map.
        images: The image [1, C, H, W], reduced to every level of the plan.
        plan: Of one image, with two levels at least, nothing skipped.

    Returns:
        Logits [1, K, h, w] composed at level 0.

    Raises:
        NotJudged: The network fails at a level, or calls other functions there.
    """
    meeting = Meeting(Canvases(plan))
    runs = [_Run(meeting, level, network, dense_modules, images[level]) for level in meeting.canvases.levels]
    threads = [threading.Thread(target=run, daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if meeting.problem is not None:
        raise NotJudged(meeting.problem)
    logits = meeting.canvases.composed({run.level: run.logits for run in runs}, 0)
    if logits is None:
        raise NotJudged(
            f"its logits {[tuple(run.logits.shape) for run in runs]} are no maps of a whole stride"
        )
    return logits


class _Run(TorchFunctionMode):
    """The network of one level; only one of them computes at a time."""

    def __init__(
        self, meeting: Meeting, level: int, network: nn.Module, dense_modules: tuple[str, ...], image: Tensor
    ) -> None:
        super().__init__()
        self.meeting, self.level, self.image = meeting, level, _marked(image.clone())
        shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
        self.network = copy.deepcopy(network, shared)
        for name in dense_modules:
            module: Any = self.network.get_submodule(name)
            module.forward = partial(self._module, module.forward)
        self.paused = False
        self.logits = image

    def __call__(self) -> None:
        """Run the network up to its logits."""
        with self.meeting.turn, torch.no_grad():
            try:
                self.share("the image", [self.image], self._repaint)
                with self:
                    self.logits = logits_of(self.network(self.image))[0]
                self.share(
                    "logits", [self.logits], lambda places: dict.fromkeys(self.meeting.canvases.levels)
                )
            except NotJudged:
                return
            except Exception as error:  # whatever a network does when an image does not suit it
                self.meeting.fail(f"it fails at level {self.level}: {first_line(error)}")

    def share(
        self, what: object, values: list[Tensor], change: Callable[[list[Maps]], Mapping[int, Any]]
    ) -> Any:
        """As of the meeting."""
        return self.meeting.share(self.level, what, values, change)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run a function, then take over what the others know."""
        named = dict(kwargs or {})
        if self.paused or not any(map(_is_marked, _tensors([args, named]))):
            return func(*args, **named)
        name = getattr(func, "__name__", "")
        if name in NORMS and args[0].ndim > 2:
            return self._normalised(func, *args, **named)
        given = self._with_others_cut(func, [list(args), named])
        out = func(*given[0], **given[1])
        found = _tensors(out)
        if not found:
            return out
        collapsed = self.share(func, found, self._repaint)
        if not collapsed:
            return map_leaves(_marked, out)
        if name == "mean" or (name == "adaptive_avg_pool2d" and out.shape[2:] == (1, 1)):
            return self._mean(func, *given)
        return self._on_the_whole(func, *given)

    def _repaint(self, places: list[Maps]) -> Mapping[int, bool]:
        """Repaint every result; say whether none of them runs over the image any more."""
        canvases = self.meeting.canvases
        for maps in places:
            canvases.repaint(maps)
        alike = all(len({x.shape for x in maps.values()}) == 1 for maps in places)
        return dict.fromkeys(canvases.levels, alike)

    def _with_others_cut(self, func: object, given: Any) -> Any:
        """Replace maps that do not follow from the image, such as positions, by those of the finest level."""
        others = [
            x for x in _tensors(given) if x.ndim and not _is_marked(x) and not isinstance(x, nn.Parameter)
        ]
        if not others:
            return given
        cut = self.share(func, others, self._cut)
        return _replace(given, others, cut)

    def _cut(self, places: list[Maps]) -> Mapping[int, list[Tensor]]:
        canvases = self.meeting.canvases
        parts = [canvases.reduced(maps) for maps in places]
        return {level: [part[level] for part in parts] for level in canvases.levels}

    def _module(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a module that sees the whole map."""
        if not any(map(_is_marked, _tensors([args, kwargs]))):
            return forward(*args, **kwargs)
        paused, self.paused = self.paused, True
        try:
            return self._on_the_whole(forward, list(args), kwargs, "a dense module")
        finally:
            self.paused = paused

    def _on_the_whole(self, func: Callable[..., Any], args: Any, kwargs: Any, what: object = None) -> Any:
        """Run something on the image composed at its finest level; others get its result, reduced."""
        given, called = [list(args), dict(kwargs)], what or func
        marked = [x for x in _tensors(given) if _is_marked(x)]
        whole = self.share(called, marked, self._compose)
        args, named = _replace(given, marked, whole)
        out = func(*args, **named)
        found = _tensors(out)
        if not found:
            return out
        cut = [x.clone() for x in self.share(called, found, self._cut)]
        over = self.share(called, cut, self._repaint_each)
        for x in (x for x, is_map in zip(cut, over, strict=True) if is_map):
            _marked(x)
        return _replace(out, found, cut)

    def _compose(self, places: list[Maps]) -> Mapping[int, list[Tensor]]:
        canvases, taken = self.meeting.canvases, {}
        for level in canvases.levels:
            taken[level] = [maps[level] for maps in places]
        first = canvases.levels[0]
        whole = [canvases.composed(maps, first) for maps in places]
        pairs = zip(whole, taken[first], strict=True)
        taken[first] = [x if new is None else new for new, x in pairs]
        return taken

    def _repaint_each(self, places: list[Maps]) -> Mapping[int, list[bool]]:
        """Repaint every result; say which of them run over the image."""
        for maps in places:
            self.meeting.canvases.repaint(maps)
        over = [len({x.shape for x in maps.values()}) > 1 for maps in places]
        return dict.fromkeys(self.meeting.canvases.levels, over)

    def _mean(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Average over the image, every sample with the area that it stands for."""
        marked = [x for x in _tensors([args, kwargs]) if _is_marked(x)]
        blank = self.share(func, marked, self._blank)
        if blank is None:
            return self._on_the_whole(func, args, kwargs)
        tensor, places, count = blank
        args, named = _replace([args, kwargs], marked, [tensor])
        weight = 4.0**self.level
        both = [func(*args, **named) * places * weight, torch.tensor(count * weight)]
        total = self.share(func, both, self._sum)
        return total[0] / total[1]

    def _blank(self, places: list[Maps]) -> Mapping[int, Any]:
        return self.meeting.canvases.blanked(places[0]) or {}

    def _sum(self, places: list[Maps]) -> Mapping[int, Any]:
        total = [torch.stack(list(maps.values())).sum(0) for maps in places]
        return dict.fromkeys(self.meeting.canvases.levels, total)

    def _normalised(self, func: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Normalise groups of channels by their mean and variance over the image."""
        names = NORMS[func.__name__]
        named = dict(zip(names, args, strict=False)) | kwargs
        if named.get("use_input_stats", True) is False:
            return _marked(func(x, *args, **kwargs))
        groups = named.get("num_groups", x.shape[1])

        def moments(places: list[Maps]) -> Mapping[int, Any]:
            return dict.fromkeys(
                self.meeting.canvases.levels, self.meeting.canvases.moments(places[0], groups)
            )

        found = self.share(func, [x], moments)
        if found is None:
            raise NotJudged(f"{func.__name__} on {tuple(x.shape)}")
        mean, variance = (v[:, :, None, None] for v in found)
        rows = (x.reshape(len(x), groups, -1, x.shape[2:].numel()) - mean) / (
            variance + named.get("eps", 1e-5)
        ).sqrt()
        out, shape = rows.reshape(x.shape), (1, -1, *[1] * (x.ndim - 2))
        for name, change in (("weight", torch.mul), ("bias", torch.add)):
            if named.get(name) is not None:
                out = change(out, named[name].reshape(shape))
        self.share(func, [out], self._repaint)
        return _marked(out)


NORMS = {
    F.group_norm.__name__: ("num_groups", "weight", "bias", "eps"),
    F.instance_norm.__name__: (
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "use_input_stats",
        "momentum",
        "eps",
    ),
}
"""Functions that normalise by statistics of the image, and their arguments after the map."""


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(value) if isinstance(leaf, Tensor)]


def _marked(x: Any) -> Any:
    if isinstance(x, Tensor):
        setattr(x, OF_TILES, True)
    return x


def _is_marked(x: Tensor) -> bool:
    return bool(getattr(x, OF_TILES, False))


def _replace(value: Any, old: list[Tensor], new: list[Tensor]) -> Any:
    """Return a structure in which some tensors are replaced."""
    by_id = {id(a): b for a, b in zip(old, new, strict=True)}
    return map_leaves(lambda leaf: by_id.get(id(leaf), leaf), value)
