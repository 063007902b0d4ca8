"""Processes of one run: how they were started, what they agree on, what each one saves."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, TypedDict

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from classifier_training.config.schema import TrainerConfig
from classifier_training.errors import EXIT_UNEXPECTED, ClassifierTrainingError, ConfigError

_PATIENCE_S = 10.0
# The first process may check many images, or fetch a run from elsewhere, before it decides.
_PATIENCE = timedelta(minutes=30)
# What processes inherit that Lightning starts from this one.
_SHARED = "CLASSIFIER_TRAINING_SHARED"


class Launch:
    """How this process was started, and what the first process of the run passes to it.

    Processes that a launcher starts side by side (``torchrun``, ``srun``, one per node by hand)
    exchange values through the key-value store of ``torch.distributed``, which needs no process
    group: an open gloo group would become the backend of GPU training. Processes that Lightning
    starts later on a node inherit the values in their environment. A context manager.

    Args:
        rank: This process among those that exist before Lightning starts its own.
        world_size: Number of those.
        store: Connects them; None: there is only one, or the values are inherited.
        inherited: Values of the process that started this one, in order; None: not started so.
    """

    def __init__(
        self, rank: int, world_size: int, store: Store | None, inherited: list[Any] | None
    ) -> None:
        self._rank = rank
        self._world_size = world_size
        self._store = store
        self._inherited = inherited
        self._shared: list[Any] = []

    @classmethod
    def detect(cls, config: TrainerConfig) -> Launch:
        """Return how this process was started.

        Raises:
            ConfigError: Several nodes without the address of the first one.
        """
        inherited = os.environ.get(_SHARED)
        if inherited is not None and os.environ.get("LOCAL_RANK", "0") != "0":
            return cls(1, 1, None, json.loads(inherited))
        environment: ClusterEnvironment
        if TorchElasticEnvironment.detect():
            environment = TorchElasticEnvironment()
        elif SLURMEnvironment.detect():
            environment = SLURMEnvironment()
        elif config.num_nodes > 1:
            return cls._of_node(config.num_nodes)
        else:
            return cls(0, 1, None, None)
        os.environ.setdefault("MASTER_ADDR", environment.main_address)
        os.environ.setdefault("MASTER_PORT", str(environment.main_port))
        return cls._connected(environment.global_rank(), environment.world_size())

    @classmethod
    def _of_node(cls, num_nodes: int) -> Launch:
        missing = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} - os.environ.keys()
        if missing:
            raise ConfigError(
                f"trainer.num_nodes={num_nodes}, but {', '.join(sorted(missing))} is not set",
                expected="the address and port of the first node, and the number of this one from "
                "0, in the environment",
                fix=f"torchrun --nnodes {num_nodes} -m classifier_training train … on each node "
                "sets them, or trainer.num_nodes=1",
            )
        return cls._connected(int(os.environ["NODE_RANK"]), num_nodes)

    @classmethod
    def _connected(cls, rank: int, world_size: int) -> Launch:
        if world_size == 1:
            return cls(0, 1, None, None)
        store, rank, world_size = next(
            iter(rendezvous("env://", rank, world_size, timeout=_PATIENCE))
        )
        return cls(rank, world_size, PrefixStore("run-session", store), None)

    @property
    def is_main(self) -> bool:
        """Whether this is the first process of the run."""
        return self._rank == 0

    def share(self, make: Callable[[], Any]) -> Any:
        """Return, in every process, what ``make`` returned in the first one (plain JSON values).

        Raises:
            ClassifierTrainingError: The first process ended with an error instead.
        """
        position = len(self._shared)
        if self._inherited is not None:
            value = self._inherited[position]
        elif self.is_main:
            value = make()
            self._publish({"value": value})
        else:
            value = self._receive(position)
        self._shared.append(value)
        os.environ[_SHARED] = json.dumps(self._shared)
        return value

    def __enter__(self) -> Launch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._inherited is None:
            os.environ.pop(_SHARED, None)
        if self._store is None or not self.is_main:
            return
        with contextlib.suppress(RuntimeError):  # the others may be gone
            if error is not None:
                self._publish({"error": _described(error)})
            elif self._shared:  # the store ends with this process: wait until all have read it
                seen = [_seen(len(self._shared) - 1, rank) for rank in range(1, self._world_size)]
                self._store.wait(seen, timedelta(seconds=_PATIENCE_S))

    def _publish(self, content: dict[str, Any]) -> None:
        if self._store is not None:
            self._store.set(str(len(self._shared)), json.dumps(content))

    def _receive(self, position: int) -> Any:
        assert self._store is not None  # only the first process has none
        try:
            self._store.wait([str(position)], _PATIENCE)
        except RuntimeError as error:
            raise ClassifierTrainingError(
                f"the first process of the run ended or does not answer ({error})",
                expected="a decision of the first process about the run folder",
                fix="see the output of the first process, then start all of them again",
            ) from error
        content = json.loads(self._store.get(str(position)))
        self._store.set(_seen(position, self._rank), "")
        if "error" in content:
            raise _error_of_main(content["error"])
        return content["value"]


def _seen(position: int, rank: int) -> str:
    return f"{position}/seen/{rank}"


def _described(error: BaseException) -> dict[str, Any]:
    if isinstance(error, ClassifierTrainingError):
        parts = {"what": error.what, "expected": error.expected, "fix": error.fix}
        return {**parts, "exit_code": error.exit_code}
    return {
        "what": f"{type(error).__name__}: {error}",
        "expected": "a first process that opens the run",
        "fix": "see the output of the first process",
        "exit_code": EXIT_UNEXPECTED,
    }


def _error_of_main(content: dict[str, Any]) -> ClassifierTrainingError:
    error = ClassifierTrainingError(
        f"rank 0: {content['what']}", expected=content["expected"], fix=content["fix"]
    )
    error.exit_code = content["exit_code"]
    return error


class Processes:
    """Exchanges small values between training processes over the CPU, without waiting for GPUs.

    Before :meth:`connect`, and with one process, each method returns the caller's own values.
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
