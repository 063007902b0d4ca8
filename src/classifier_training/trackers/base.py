"""What a tracker is told of a run, and when."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from classifier_training.run.folder import RunFolder

Outcome = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker may know of a run when it begins.

    Attributes:
        folder: Its folder; nothing is written elsewhere.
        run_id: Its id in ``run.json``; the same when it goes on.
        config: The resolved configuration, as nested plain values.
        step: Optimiser steps done before training starts or goes on.
        rows: Those of ``metrics.csv`` so far.
    """

    folder: RunFolder
    run_id: str
    config: dict[str, Any]
    step: int
    rows: list[dict[str, float]]

    @property
    def name(self) -> str:
        """What people call it: the name of its folder."""
        return self.folder.path.name

    @property
    def is_resumed(self) -> bool:
        """Whether it trained before."""
        return self.step > 0


class Tracker(Logger):
    """A logger that can follow a run through interruptions.

    Two streams reach it. Lightning's ``log_metrics`` brings values of single steps, at the number
    of optimiser steps done before them. :meth:`log_epoch` brings the rows of ``metrics.csv``, each
    after the checkpoint that holds it was saved: no row is ever ahead of what a run goes on from.

    Nothing is opened before :meth:`begin`. Everything here may raise: a fence stands around it.
    """

    @abstractmethod
    def begin(self, run: TrackedRun, sent: int) -> int:
        """Open the run, or go on with it.

        Args:
            run: What it is.
            sent: The last epoch that is known to have been sent, -1 for none.

        Returns:
            The last epoch that need not be sent again, for trackers that know it better.
        """

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Take a row of ``metrics.csv``; its ``step`` is the x axis."""

    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """Take PNG files by name."""

    def conclude(self, scores: Mapping[str, float], run: TrackedRun) -> None:
        """Take the scores of the finished run, after evaluation and export."""

    def close(self, outcome: Outcome) -> None:
        """Write out what is held back, and let go."""

    @property
    def name(self) -> str:
        """Nothing that a path would be made of."""
        return ""

    @property
    def version(self) -> str:
        """Nothing that a path would be made of."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Pass over: :meth:`begin` brings the whole configuration."""
