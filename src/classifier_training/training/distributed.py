"""What the processes of a distributed run must decide together, and how they say it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any, TypedDict

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

_PATIENCE_S = 10.0


class Processes:
    """Exchanges small values between processes over the CPU, so that no GPU is waited for.

    Alone (before :meth:`connect`, or with one process) every answer is one's own.
    """

    def __init__(self) -> None:
        self._group: ProcessGroup | None = None
        self._children: list[subprocess.Popen[bytes]] = []

    def connect(self, world_size: int) -> None:
        """Open the group; all processes call it at the same place."""
        if world_size > 1 and self._group is None:
            group = dist.new_group(backend="gloo")
            assert isinstance(group, ProcessGroup)  # all processes are members
            self._group = group

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

    def part(self, trainer: pl.Trainer) -> None:
        """Agree that this run ends here with an exit code that is not 0.

        Lightning watches the processes that it started, and kills this one as soon as one of them
        ends so; it must forget them before they do.
        """
        self._children += _forget_children(trainer)
        self.wait()

    @contextlib.contextmanager
    def ending(self, trainer: pl.Trainer) -> Iterator[None]:
        """After a failure, let no process that Lightning started wait for this one for ever."""
        try:
            yield
        except BaseException:
            self._end(trainer)
            raise

    def wait(self) -> None:
        """Return when all processes are here."""
        if self._group is not None:
            dist.barrier(group=self._group)

    def _end(self, trainer: pl.Trainer) -> None:
        left = _forget_children(trainer)
        for child in left:
            child.terminate()
        for child in [*self._children, *left]:
            try:
                child.wait(timeout=_PATIENCE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _forget_children(trainer: pl.Trainer) -> list[subprocess.Popen[bytes]]:
    """Take the processes that Lightning started out of the list that its observer looks at."""
    known: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    children = list(known)
    known.clear()
    return children


RngStates = dict[str, Tensor]


class RankState(TypedDict):
    """One process's own part of a checkpoint.

    Attributes:
        rng: Its random states, by device.
        sums: Its training scores so far in this epoch, under their keys in the state dict.
    """

    rng: RngStates
    sums: dict[str, Tensor]


def share_of(states: list[RankState], rank: int, world_size: int) -> RankState:
    """Return what a process goes on with.

    With another number of processes than the one that saved, the first takes all sums.
    """
    if len(states) == world_size:
        return states[rank]
    totals = {
        key: torch.stack([state["sums"][key] for state in states]).sum(dim=0)
        for key in states[0]["sums"]
    }
    zeros = {key: torch.zeros_like(total) for key, total in totals.items()}
    return RankState(rng=states[rank % len(states)]["rng"], sums=totals if rank == 0 else zeros)


def rng_states(device: torch.device) -> RngStates:
    """Return the states of the CPU's generator and, on another device, of that one's."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def restore_rng(states: RngStates) -> None:
    """Put the states back; those of a device that is not there now are passed over."""
    for kind, state in states.items():
        if kind == "cpu":
            torch.set_rng_state(state)
        elif torch.get_device_module(kind).is_available():
            torch.get_device_module(kind).set_rng_state(state)
