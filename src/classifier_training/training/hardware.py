"""Which device and number format a run uses, and why."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from loguru import logger

from classifier_training.config.schema import Config, TrainerConfig
from classifier_training.errors import ConfigError
from classifier_training.evaluation.models import exact_fp32

_AMPERE = (8, 0)
_VOLTA = (7, 0)


@dataclass(frozen=True)
class Device:
    """What is known about the device to train on.

    Attributes:
        kind: ``cpu``, ``cuda`` or ``mps``.
        name: As a person calls it.
        capability: CUDA compute capability, (0, 0) elsewhere.
        cpu_bf16: Whether the CPU multiplies bf16 (AVX512-BF16 or AMX).
    """

    kind: str
    name: str
    capability: tuple[int, int] = (0, 0)
    cpu_bf16: bool = False


@dataclass(frozen=True)
class Hardware:
    """The decision.

    Attributes:
        device: What was found.
        precision: Lightning's name of the number format.
        reason: Why.
    """

    device: Device
    precision: str
    reason: str

    @property
    def accelerator(self) -> str:
        """Lightning's name of the device kind."""
        return self.device.kind

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` records of it."""
        return {"device": self.device.name, "precision": self.precision, "reason": self.reason}


def prepare(config: Config) -> Hardware:
    """Choose the hardware, seed all generators, and let scores be computed in exact fp32.

    Raises:
        ConfigError: See :func:`choose_hardware`.
    """
    hardware = choose_hardware(config.trainer)
    logger.info(
        "hardware: {}, precision {} ({})", hardware.device.name, hardware.precision, hardware.reason
    )
    pl.seed_everything(config.seed, verbose=False)
    exact_fp32()
    return hardware


def choose_hardware(config: TrainerConfig, *, dev: Path = Path("/dev")) -> Hardware:
    """Find the device and decide the precision.

    Args:
        config: ``accelerator`` and ``precision`` are read.
        dev: Where the operating system shows devices.

    Raises:
        ConfigError: A GPU was asked for and there is none; one is visible but unusable and the CPU
            was not asked for; or the precision does not run on the device.
    """
    device = _find_device(config.accelerator, dev)
    precision, reason = choose_precision(config.precision, device)
    return Hardware(device, precision, reason)


def choose_precision(asked: str, device: Device) -> tuple[str, str]:
    """Return the precision and the reason for it.

    Raises:
        ConfigError: The device cannot compute what was asked for.
    """
    if asked != "auto":
        _refuse_unsuited(asked, device)
        return asked, "as configured"
    if device.kind == "cuda" and device.capability >= _AMPERE:
        return "bf16-mixed", f"{device.name} multiplies bf16"
    if device.kind == "cuda" and device.capability >= _VOLTA:
        return "16-mixed", f"{device.name} has fp16 tensor cores but no bf16"
    if device.kind == "cpu" and device.cpu_bf16:
        return "bf16-mixed", "this CPU multiplies bf16 (AVX512-BF16 or AMX)"
    return "32-true", f"{device.name} has no faster format that is safe"


def _refuse_unsuited(asked: str, device: Device) -> None:
    if asked == "16-mixed" and device.kind != "cuda":
        raise ConfigError(
            f"trainer.precision=16-mixed does not run on {device.name}",
            expected="16-mixed on a GPU only",
            fix="trainer.precision=auto",
        )
    if asked == "bf16-mixed" and device.kind == "cuda" and device.capability < _AMPERE:
        raise ConfigError(
            f"trainer.precision=bf16-mixed: {device.name} has no bf16 units and would emulate them",
            expected="bf16 on Ampere or newer",
            fix="trainer.precision=16-mixed (or auto)",
        )


def _find_device(asked: str, dev: Path) -> Device:
    if asked == "cpu":
        return _cpu()
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        return Device("cuda", torch.cuda.get_device_name(), (major, minor))
    if asked in ("auto", "gpu", "cuda"):
        _refuse_unusable_gpu(dev)
    if asked in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return Device("mps", "the Apple GPU")
    if asked != "auto":
        raise ConfigError(
            f"trainer.accelerator={asked}, but there is no such device",
            expected="a GPU that torch can use",
            fix="trainer.accelerator=auto (takes the CPU when there is no GPU), or trainer=cpu",
        )
    return _cpu()


def _refuse_unusable_gpu(dev: Path) -> None:
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    visible = sorted(path.name for path in dev.glob("nvidia[0-9]*"))
    if is_hidden or not visible:
        return
    raise ConfigError(
        f"an NVIDIA device is visible ({dev / visible[0]}) but torch {torch.__version__} "
        "cannot use it",
        expected="a driver that is new enough for this build of torch",
        fix="update the driver (nvidia-smi shows it), install a torch build for it, or ask for "
        "the CPU: trainer=cpu",
    )


def _cpu() -> Device:
    return Device("cpu", "the CPU", cpu_bf16=_cpu_multiplies_bf16())


def _cpu_multiplies_bf16() -> bool:
    query: Callable[[], dict[str, object]] | None = getattr(torch.cpu, "get_capabilities", None)
    if query is not None:
        found = query()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    flags = Path("/proc/cpuinfo")  # older torch cannot tell
    text = flags.read_text() if flags.exists() else ""
    return "avx512_bf16" in text or "amx_bf16" in text
