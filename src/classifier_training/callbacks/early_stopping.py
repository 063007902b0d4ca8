"""Stop when the monitored metric no longer improves."""

from __future__ import annotations

from lightning.pytorch import callbacks

from classifier_training.config.metric_names import mode_of


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, with the direction inferred from the metric's name.

    Args:
        monitor: Metric key, for example ``val/f1_macro``.
        patience: Epochs without improvement after which training stops.
        min_delta: What counts as an improvement.
    """

    def __init__(self, monitor: str, patience: int, min_delta: float) -> None:
        super().__init__(
            monitor=monitor,
            patience=patience,
            min_delta=min_delta,
            mode=mode_of(monitor),
            # A score that is no number is the checkpoint's to refuse, with a clear error.
            check_finite=False,
            verbose=False,
        )
