"""Which cloud machine a hardware preset stands for, and roughly what an hour of it costs."""

from __future__ import annotations

from dataclasses import dataclass

from classifier_training.errors import ConfigError

# Rough list prices (USD an hour, on demand, us-central1) of custom training on Vertex AI in 2025,
# GPU included. They are no quotation: regions and days differ, and spot machines cost less.
PRICES_OF = "rough list price of 2025, on demand, us-central1"


@dataclass(frozen=True)
class Machine:
    """A kind of machine.

    Attributes:
        machine_type: Compute Engine's name.
        accelerator_type: Vertex AI's name of the GPU; None: none.
        accelerator_count: GPUs.
        usd_per_hour: See ``PRICES_OF``.
    """

    machine_type: str
    accelerator_type: str | None
    accelerator_count: int
    usd_per_hour: float


# By the name of the preset in conf/trainer, and the number of GPUs.
_MACHINES = {
    ("cpu", 0): Machine("n1-standard-8", None, 0, 0.44),
    ("t4", 1): Machine("n1-standard-8", "NVIDIA_TESLA_T4", 1, 0.84),
    ("t4", 2): Machine("n1-standard-16", "NVIDIA_TESLA_T4", 2, 1.68),
    ("t4", 4): Machine("n1-standard-32", "NVIDIA_TESLA_T4", 4, 3.36),
    ("l4", 1): Machine("g2-standard-8", "NVIDIA_L4", 1, 0.98),
    ("l4", 2): Machine("g2-standard-24", "NVIDIA_L4", 2, 2.30),
    ("l4", 4): Machine("g2-standard-48", "NVIDIA_L4", 4, 4.60),
    ("a100", 1): Machine("a2-highgpu-1g", "NVIDIA_TESLA_A100", 1, 4.43),
    ("a100", 2): Machine("a2-highgpu-2g", "NVIDIA_TESLA_A100", 2, 8.85),
    ("a100", 4): Machine("a2-highgpu-4g", "NVIDIA_TESLA_A100", 4, 17.70),
}
PRESETS = tuple(dict.fromkeys(preset for preset, _ in _MACHINES))


def machine_for(preset: str | None, gpus: int | None) -> Machine:
    """Return the machine of a preset.

    Args:
        preset: ``t4``, ``l4``, ``a100`` or ``cpu``; None: nothing said so.
        gpus: How many; None: one, or none on ``cpu``.

    Raises:
        ConfigError: There is no such machine.
    """
    if preset not in PRESETS:
        raise ConfigError(
            "nothing says on which machine to train"
            if preset is None
            else f"no cloud machine is known for trainer={preset}",
            expected=f"one of {', '.join(PRESETS)}",
            fix="trainer=t4, or for several GPUs: trainer=ddp --machine l4 --gpus 2",
        )
    asked = gpus if gpus is not None else int(preset != "cpu")
    if (preset, asked) not in _MACHINES:
        counts = ", ".join(str(count) for name, count in _MACHINES if name == preset)
        raise ConfigError(
            f"no machine has {asked} GPUs of preset {preset}",
            expected=f"--gpus {counts}",
            fix="choose one of them",
        )
    return _MACHINES[preset, asked]
