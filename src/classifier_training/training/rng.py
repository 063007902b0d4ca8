"""The random streams that the network draws from: dropout, stochastic depth."""

from __future__ import annotations

import torch
from torch import Tensor

RngStates = dict[str, Tensor]


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
