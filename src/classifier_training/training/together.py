"""What the processes of a distributed run must decide together, and how they say it."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup


class Together:
    """Exchanges small values between processes over the CPU, so that no GPU is waited for.

    Alone (before :meth:`connect`, or with one process) every answer is one's own.
    """

    def __init__(self) -> None:
        self._group: ProcessGroup | None = None

    def connect(self, world_size: int) -> None:
        """Open the group; all processes call it at the same place."""
        if world_size > 1 and self._group is None:
            self._group = dist.new_group(backend="gloo")

    @property
    def is_alone(self) -> bool:
        """Whether there is one process only."""
        return self._group is None

    def largest(self, *values: int) -> list[int]:
        """Return the largest that any process gave, value by value."""
        if self._group is None:
            return list(values)
        shared = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self._group)
        return [int(value) for value in shared]

    def gather(self, value: Any) -> list[Any]:
        """Return what each process gave, by rank."""
        if self._group is None:
            return [value]
        gathered: list[Any] = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(gathered, value, group=self._group)
        return gathered

    def wait(self) -> None:
        """Return when all processes are here."""
        if self._group is not None:
            dist.barrier(group=self._group)
