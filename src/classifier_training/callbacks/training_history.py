"""How the run went so far, as curves."""

from __future__ import annotations

from classifier_training.callbacks.base import Callback
from classifier_training.plots.history import draw_history
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import History


class TrainingHistory(Callback):
    """Draws ``plots/history.png`` from the rows of ``metrics.csv``, the last epoch included.

    The rows come from the checkpoint, so a resumed run has the curves of all its epochs.
    """

    def on_epoch_recorded(self, folder: RunFolder, history: History) -> None:
        """Draw all epochs."""
        path = folder.plots / "history.png"
        draw_history(history.rows, history.best_epoch, history.monitor, path)
