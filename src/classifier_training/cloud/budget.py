"""How long a job may run, and what that costs at most."""

from __future__ import annotations

from dataclasses import dataclass

from classifier_training.cloud.machines import PRICES_OF, Machine
from classifier_training.errors import ConfigError

# Waiting for the image and the machine, reading data, evaluation and export.
_AROUND_HOURS = 0.5


@dataclass(frozen=True)
class Workload:
    """What is known of the training.

    Attributes:
        epochs: At most.
        images: Training images; None: unknown.
        images_per_s: As measured on such a machine; None: unknown.
    """

    epochs: int
    images: int | None
    images_per_s: float | None

    @property
    def hours(self) -> float | None:
        """Expected hours, None without a basis."""
        if self.images is None or self.images_per_s is None:
            return None
        return self.epochs * self.images / self.images_per_s / 3600 + _AROUND_HOURS


@dataclass(frozen=True)
class Budget:
    """The bounds of a job.

    Attributes:
        hours: After which it is stopped; its run folder can be gone on with.
        usd_per_hour: Price that is counted.
        basis: Where the price comes from.
        expected_hours: Estimate, None without a basis.
    """

    hours: float
    usd_per_hour: float
    basis: str
    expected_hours: float | None

    def lines(self) -> list[str]:
        """Say it."""
        price = f"${self.usd_per_hour:.2f} an hour ({self.basis})"
        bound = f"at most {self.hours:.1f} h, ${self.hours * self.usd_per_hour:.2f} at {price}"
        if self.expected_hours is None:
            return [bound, "time: unknown; --images N --images-per-s R give an estimate"]
        cost = self.expected_hours * self.usd_per_hour
        return [bound, f"expected: about {self.expected_hours:.1f} h, ${cost:.2f} (estimated)"]


def budget(
    machine: Machine,
    workload: Workload,
    *,
    max_hours: float,
    max_usd: float | None,
    usd_per_hour: float | None,
) -> Budget:
    """Bound a job in time, so that it is bounded in money.

    Args:
        machine: Where it runs.
        workload: For the estimate.
        max_hours: The longest it may run.
        max_usd: The most it may cost; None: only the time counts.
        usd_per_hour: Price to count instead of the rough list price.

    Raises:
        ConfigError: The estimate is above a bound.
    """
    price = machine.usd_per_hour if usd_per_hour is None else usd_per_hour
    basis = PRICES_OF if usd_per_hour is None else "--usd-per-hour"
    hours = max_hours if max_usd is None else min(max_hours, max_usd / price)
    expected = workload.hours
    if expected is not None and expected > hours:
        raise ConfigError(
            f"the training is expected to take {expected:.1f} h, ${expected * price:.2f}",
            expected=f"at most {hours:.1f} h, ${hours * price:.2f} (--max-hours, --max-usd)",
            fix="fewer trainer.max_epochs, a smaller model, or a larger bound",
        )
    return Budget(hours, price, basis, expected)
