"""What all exits of a network answer on labelled images, and the times of its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from foveal.cost import alternate
from foveal.data.pairs import Dataset
from foveal.methods import Mess
from foveal.objectives.confusion import Confusion
from foveal.ops import classify
from foveal.storage.labels import VOID

SAMPLED = 4000
"""Pixels of an image whose logits are kept."""
Progress = Callable[[str, int, int], None]


@dataclass
class ExitAnswers:
    """What all exits, and the end after them, answered.

    Attributes:
        answers: Counts of true and predicted classes, by image and exit.
        confidence: Of every exit before the end, by image.
        sample: Logits and labels of sampled pixels, by exit.
        size: Height and width of most images [px].
    """

    answers: list[list[Tensor]] = field(default_factory=list)
    confidence: list[list[float]] = field(default_factory=list)
    sample: list[list[tuple[Tensor, Tensor]]] = field(default_factory=list)
    size: tuple[int, int] = (1, 1)

    def confusion(self, leaves: Sequence[int]) -> Confusion:
        """Add up what is answered if every image leaves at an exit."""
        counts = [answers[k] for answers, k in zip(self.answers, leaves, strict=True)]
        total = Confusion(len(counts[0]))
        total.counts = torch.stack(counts).sum(0)
        return total


@torch.inference_mode()
def ask_all(method: Mess, data: Dataset, count: int, progress: Progress) -> ExitAnswers:
    """Run all exits on all images."""
    seen, ends = ExitAnswers(), len(method.heads)
    seen.sample = [[] for _ in range(ends + 1)]
    for index in range(count):
        image, target = data[index]
        size = image.shape[1], image.shape[2]
        early, final = method.exit_logits(image[None].contiguous(memory_format=torch.channels_last))
        strides = (*(place.stride for place in method.stages.places), method.stages.stride)
        found = [method.enlarged(x, s, size) for x, s in zip((*early, final), strides, strict=True)]
        seen.answers.append([_counts(classify(x, size), target[None], len(data.classes)) for x in found])
        seen.confidence.append([float(method.confidence(x)) for x in found[:ends]])
        chosen = _sampled(target)
        for k, logits in enumerate(found):
            whole = torch.nn.functional.interpolate(logits.float(), size=size, mode="bilinear")[0].flatten(1)
            seen.sample[k].append((whole[:, chosen].T.clone(), target.flatten()[chosen].long()))
        seen.size = size
        progress("images", index + 1, count)
    return seen


def _counts(labels: Tensor, target: Tensor, classes: int) -> Tensor:
    found = Confusion(classes)
    found.add(labels, target)
    return found.counts


def _sampled(target: Tensor) -> Tensor:
    """Choose labelled pixels, evenly spaced."""
    known = (target.flatten() != VOID).nonzero()[:, 0]
    return known[:: max(1, len(known) // SAMPLED)]


@torch.inference_mode()
def stage_times(method: Mess, data: Dataset, count: int) -> list[tuple[float, float]]:
    """Return the median time of every stage and of its head [ms], in the mean over some images."""
    found: list[list[tuple[float, float]]] = []
    for index in range(min(count, len(data))):
        values = method.stages.start(data[index][0][None].contiguous(memory_format=torch.channels_last))
        turns: dict[str, Callable[[], Any]] = {}
        for stage in range(len(method.stages)):
            turns[f"stage {stage}"] = partial(method.stages.run, stage, values)
            values = method.stages.run(stage, values)
            if stage < len(method.heads):
                turns[f"head {stage}"] = partial(method.heads[stage], method.stages.at(stage, values))
        times = {name: timing.median for name, timing in alternate(turns, 5, warmup=1).items()}
        found.append([(times[f"stage {k}"], times.get(f"head {k}", 0.0)) for k in range(len(method.stages))])
    return [(fmean(x[0] for x in each), fmean(x[1] for x in each)) for each in zip(*found, strict=True)]
