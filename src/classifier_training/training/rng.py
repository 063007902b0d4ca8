"""What each process of a run has for itself: its random streams and its sums of the epoch.

The random streams are what the network draws from: dropout, stochastic depth.
"""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

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
