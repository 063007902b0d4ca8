"""What a model's confidence is worth: the optional ``calibration`` section of the sidecar, applied.

Everything needs the logits alone, so the ONNX file stays as it is and a deployer may leave all of
it out. How the numbers are fitted stands in ``metrics.calibration``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier_training.inference.agreement import softmax

ENERGY_FORMULA = "-log(sum(exp(logits)))"
CONFORMAL_METHOD = "lac"


@dataclass(frozen=True)
class UnsureRule:
    """When an answer is better not relied on.

    Attributes:
        below: Calibrated confidence under which an answer is unsure; 0: none is.
        target: ``accuracy`` (of the answers that are not unsure) or ``coverage`` (their share).
        value: The accuracy or share that was asked for, on val.
    """

    below: float
    target: str
    value: float


@dataclass(frozen=True)
class ConformalRule:
    """Sets that hold the true class in a chosen share of images (split conformal, LAC).

    Attributes:
        coverage: That share, for images drawn like the val images.
        least_probability: A class is in the set if its calibrated probability is at least this.
    """

    coverage: float
    least_probability: float


@dataclass(frozen=True)
class EnergyRule:
    """When an image is unlike the val images (energy of the logits, Liu et al. 2020, eq. 4, T=1).

    Attributes:
        kept: Share of val images that are not flagged.
        above: Energy over which an image is flagged.
    """

    kept: float
    above: float


@dataclass(frozen=True)
class Calibration:
    """The fitted numbers; a rule is None where val could not support one.

    Attributes:
        images: Number of val images that everything was fitted on.
        temperature: Logits are divided by it before the softmax (Guo et al. 2017).
        unsure: When an answer is unsure.
        conformal: How sets are made.
        energy: When an image is out of distribution.
    """

    images: int
    temperature: float
    unsure: UnsureRule | None
    conformal: ConformalRule | None
    energy: EnergyRule | None

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return ``(N, C)`` calibrated float32 probabilities of ``(N, C)`` float32 logits."""
        return softmax(logits.astype(np.float64) / self.temperature)

    def is_unsure(self, confidence: float) -> bool | None:
        """Whether an answer of this calibrated confidence is unsure; None without a rule."""
        return None if self.unsure is None else confidence < self.unsure.below

    def candidates(self, calibrated: npt.NDArray[np.float32]) -> list[int]:
        """Return the conformal set of ``(C,)`` calibrated probabilities, most probable first.

        Raises:
            ValueError: There is no rule for sets.
        """
        if self.conformal is None:
            raise ValueError("no conformal sets were fitted")
        order = np.argsort(-calibrated, kind="stable")
        held = calibrated[order] >= self.conformal.least_probability
        return [int(index) for index in order[held]]

    def is_out_of_distribution(self, energy: float) -> bool | None:
        """Whether logits of this energy are unlike those of val images; None without a rule."""
        return None if self.energy is None else energy > self.energy.above

    def to_json(self) -> dict[str, Any]:
        """Return the sidecar's section."""
        unsure, conformal, energy = self.unsure, self.conformal, self.energy
        return {
            "fitted_on": "val",
            "images": self.images,
            "temperature": self.temperature,
            "unsure": unsure
            and {"below": unsure.below, "target": unsure.target, "value": unsure.value},
            "conformal": conformal
            and {
                "method": CONFORMAL_METHOD,
                "coverage": conformal.coverage,
                "least_probability": conformal.least_probability,
            },
            "out_of_distribution": energy
            and {"score": ENERGY_FORMULA, "kept": energy.kept, "above": energy.above},
        }

    @classmethod
    def from_json(cls, section: dict[str, Any]) -> Calibration:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: It is something else; the caller names the file.
        """
        unsure, conformal, energy = (
            section[key] for key in ("unsure", "conformal", "out_of_distribution")
        )
        if conformal is not None and conformal["method"] != CONFORMAL_METHOD:
            raise ValueError(f"calibration.conformal.method {conformal['method']!r} is unknown")
        if energy is not None and energy["score"] != ENERGY_FORMULA:
            raise ValueError("calibration.out_of_distribution.score is unknown")
        if unsure is not None and unsure["target"] not in ("accuracy", "coverage"):
            raise ValueError(f"calibration.unsure.target {unsure['target']!r} is unknown")
        temperature = _number(section, "temperature", low=0)
        if temperature == 0:
            raise ValueError("calibration.temperature must be positive")
        return cls(
            images=int(_number(section, "images", low=0)),
            temperature=temperature,
            unsure=unsure
            and UnsureRule(_share(unsure, "below"), unsure["target"], _share(unsure, "value")),
            conformal=conformal
            and ConformalRule(
                _share(conformal, "coverage"), _share(conformal, "least_probability")
            ),
            energy=energy and EnergyRule(_share(energy, "kept"), _number(energy, "above")),
        )


def energies(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return ``(N,)`` energies of ``(N, C)`` logits; the higher, the less the model knows it."""
    values = logits.astype(np.float64)
    highest = values.max(axis=1, keepdims=True)
    return np.asarray(-(highest[:, 0] + np.log(np.exp(values - highest).sum(axis=1))))


def _number(section: dict[str, Any], key: str, *, low: float = -math.inf) -> float:
    value = section[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"calibration: {key} must be a number")
    if not math.isfinite(value) or value < low:
        raise ValueError(f"calibration: {key} is {value}")
    return float(value)


def _share(section: dict[str, Any], key: str) -> float:
    value = _number(section, key, low=0)
    if value > 1:
        raise ValueError(f"calibration: {key} is {value}, not in 0..1")
    return value
