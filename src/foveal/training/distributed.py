"""Training by several processes, started by torchrun, that gives what one process gives.

Every process takes its places of the same batch. Three things are about the batch as a whole and are shared:
the gradients, and what `foveal.training.batch_sync` names.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as group

from foveal.data.batches import Batches
from foveal.training.batch_sync import as_one, dense_modules

SEEDS_APART = 7_919_000_003
"""Between the seeds of two processes: more than the steps of a run."""


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is.

    Attributes:
        rank: Number of this process.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Return the group that this process has joined, or a group of one."""
        joined = group.is_available() and group.is_initialized()
        return cls(group.get_rank(), group.get_world_size()) if joined else cls()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """Seed of what this process draws in a step; of the first one, as if it were alone."""
        return seed + self.rank * SEEDS_APART

    def share(self, batches: Batches) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Return the function that gives this process's part of the batch of a step.

        Raises:
            ValueError: The batch cannot be split evenly.
        """
        if self.size == 1:
            return batches.__getitem__
        if batches.batch % self.size:
            raise ValueError(
                f"train.batch is {batches.batch} and there are {self.size} processes; give a batch that is a "
                f"multiple of {self.size}"
            )
        single = copy.copy(batches)
        single.batch = 1  # a batch of one image is numbered by its position in the run

        def part(step: int) -> tuple[Tensor, Tensor]:
            places = range(self.rank, batches.batch, self.size)
            images, labels = zip(*(single[step * batches.batch + place] for place in places), strict=True)
            return torch.cat(images), torch.cat(labels)

        return part

    def broadcast_weights(self, module: nn.Module) -> None:
        """Give every process the weights of the first."""
        if self.size > 1:
            for value in module.state_dict().values():
                group.broadcast(value, 0)

    def average(self, values: dict[str, float], device: str) -> dict[str, float]:
        """Average numbers over the processes; NaN in one is NaN in all, so that all stop together."""
        if self.size == 1:
            return values
        total = torch.tensor(list(values.values()), dtype=torch.float32, device=device)
        group.all_reduce(total)
        return dict(zip(values, (total / self.size).tolist(), strict=True))

    @torch.no_grad()
    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Average gradients over the processes; one that no process has stays absent."""
        if self.size == 1:
            return
        present = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([present, *(part.flatten().float() for part in parts)])
        group.all_reduce(flat)
        present, *sums = flat.split([len(parameters), *(p.numel() for p in parameters)])
        for parameter, there, total in zip(parameters, present.tolist(), sums, strict=True):
            if there:
                mean = (total / self.size).to(parameter.dtype).view(parameter.shape)
                parameter.grad = torch.empty_like(parameter).copy_(mean)

    @torch.no_grad()
    def average_statistics(self, method: nn.Module) -> None:
        """Average the statistics of norms that every process took from its own part alone."""
        if self.size == 1:
            return
        for module in dense_modules(method):
            for value in module.buffers():
                if value.is_floating_point():
                    group.all_reduce(value)
                    value.div_(self.size)

    def as_one(self, method: nn.Module) -> AbstractContextManager[Any]:
        """Compute as if the parts of the batch were together, while the context is open."""
        return as_one(method) if self.size > 1 else nullcontext()


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Args:
        device: Where the recipe wants to compute.

    Yields:
        The device of this process: each gets a GPU of its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    kind = torch.device(device).type
    if kind == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    group.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield device
    finally:
        group.destroy_process_group()
