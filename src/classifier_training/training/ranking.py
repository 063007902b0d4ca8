"""Which epoch is best, and which checkpoints are kept beside the best and the last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from classifier_training.config.metric_names import mode_of
from classifier_training.config.schema import CheckpointConfig


def epoch_file(epoch: int) -> str:
    """Return the name of the checkpoint of an epoch (from 0)."""
    return f"epoch={epoch:04d}.ckpt"


class Ranking:
    """Ranks epochs by the monitored score.

    Args:
        config: The monitored score and how many checkpoints are kept.

    Attributes:
        best_epoch: The best epoch, from 0; -1 before the first.
        best_score: Its score.
        kept: Scores of the checkpoints of single epochs, by file name.
    """

    def __init__(self, config: CheckpointConfig) -> None:
        self._sign = 1.0 if mode_of(config.monitor) == "max" else -1.0
        self._top_k = config.save_top_k
        self.best_epoch = -1
        self.best_score = float("nan")
        self.kept: dict[str, float] = {}

    def add(self, epoch: int, score: float) -> list[str]:
        """Rank an epoch, and return the checkpoints that are no longer kept."""
        if self.best_epoch < 0 or self._sign * score > self._sign * self.best_score:
            self.best_epoch, self.best_score = epoch, score
        self.kept[epoch_file(epoch)] = score
        ranked = sorted(self.kept, key=lambda name: (-self._sign * self.kept[name], name))
        dropped = ranked[self._top_k :]
        for name in dropped:
            del self.kept[name]
        return dropped

    def keep_only(self, existing: Iterable[str], *, has_best: bool) -> None:
        """Forget checkpoints that are not in the folder."""
        there = set(existing)
        self.kept = {name: score for name, score in self.kept.items() if name in there}
        if not has_best:
            self.best_epoch, self.best_score = -1, float("nan")

    def state_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return {
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "kept": self.kept,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.best_epoch = state["best_epoch"]
        self.best_score = state["best_score"]
        self.kept = state["kept"]
