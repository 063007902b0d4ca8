"""Weights & Biases: online with a key, offline without, in the run folder either way."""

from __future__ import annotations

import contextlib
import netrc
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from loguru import logger

from classifier_training.errors import ConfigError
from classifier_training.trackers.base import Outcome, TrackedRun, Tracker

if TYPE_CHECKING:
    from wandb import Run

_Mode = Literal["online", "offline", "disabled"]
_KEY_VARIABLES = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
_MODES = ("auto", "online", "offline")
# Seconds that the start and the end of a run may wait for the server.
_WAIT_S = 30.0


class WandbTracker(Tracker):
    """Logs to Weights & Biases under the id of ``run.json``, so that a resumed run goes on there.

    The x axis is W&B's own step, set to the optimiser steps done. Steps that the server has
    already are passed over. An offline part holds all epochs so far, not only its own: what a
    kill took from the part before it (W&B writes its file late) is in the next.

    Args:
        project: Project, made when it does not exist.
        entity: Team or user; null: the default of the key.
        name: Shown name; null: that of the run folder.
        group: Group of runs; null: none.
        tags: Tags.
        mode: ``auto`` is online when there is a key; ``online`` and ``offline`` say so.

    Raises:
        ConfigError: An unknown mode.
    """

    def __init__(
        self,
        project: str,
        entity: str | None,
        name: str | None,
        group: str | None,
        tags: list[str],
        mode: str,
    ) -> None:
        super().__init__()
        if mode not in _MODES:
            raise ConfigError(
                f"logging.wandb.mode: {mode!r} does not fit",
                expected=f"one of {', '.join(_MODES)}",
                fix="logging.wandb.mode=auto",
            )
        self._mode = mode
        self._project, self._entity, self._group = project, entity, group
        self._name = name
        self._tags = list(tags)
        self._run: Run | None = None

    def begin(self, run: TrackedRun, sent: int) -> int:
        """Open the run; without an answer of the server within seconds, offline."""
        import wandb

        mode = self._chosen_mode()
        try:
            self._run = self._open(run, mode)
        except wandb.Error as error:
            if mode != "online":
                raise
            logger.warning("W&B: {}; going on offline", " ".join(str(error).split()))
            wandb.teardown()  # else its process still holds the id
            self._run = self._open(run, "offline")
        if mode == "disabled":
            logger.info("W&B: disabled by WANDB_MODE")
        elif self._run.offline:
            logger.info("W&B: offline; upload with: wandb sync {}", shlex.quote(self._run_folder()))
        else:
            logger.info("W&B: {}", self._run.url)
        return -1

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the values of a step, unless the server has that step."""
        if self._run is not None and (step is None or step >= self._run.step):
            self._run.log(dict(metrics), step=step)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Log a row."""
        values = {name: value for name, value in row.items() if name != "step"}
        self.log_metrics(values, int(row["step"]))

    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """Log PNG files."""
        import wandb

        if self._run is not None and step >= self._run.step:
            images = {name: wandb.Image(str(path)) for name, path in pictures.items()}
            self._run.log(images, step=step)

    def conclude(self, scores: Mapping[str, float], run: TrackedRun) -> None:
        """Write the final scores into the summary."""
        if self._run is not None:
            self._run.summary.update(dict(scores))

    def close(self, outcome: Outcome) -> None:
        """End the run; what could not be uploaded in time stays in its folder."""
        if self._run is not None:
            run, self._run = self._run, None
            run.finish(exit_code=0 if outcome == "finished" else 1)

    def _open(self, run: TrackedRun, mode: _Mode) -> Run:
        import wandb

        record = run.folder.read_record() if run.folder.record_file.exists() else {}
        run.folder.path.mkdir(parents=True, exist_ok=True)
        with _own_caches(run.folder.path / "wandb" / "cache"):
            return wandb.init(
                project=self._project,
                entity=self._entity,
                group=self._group,
                name=self._name or run.name,
                tags=self._tags,
                id=run.run_id,
                resume="allow",
                dir=str(run.folder.path.absolute()),
                mode=mode,
                config={**run.config, "git": record.get("git")},
                allow_val_change=True,
                reinit="create_new",
                settings=wandb.Settings(
                    silent=True,  # log.txt and the terminal are ours
                    console="off",
                    # A patch of uncommitted work may hold anything; run.json names the commit.
                    disable_git=True,
                    save_code=False,
                    init_timeout=_WAIT_S,
                    finish_timeout=_WAIT_S,
                ),
            )

    def _chosen_mode(self) -> _Mode:
        """Choose the mode; online without a key would ask for one, and wait."""
        asked = os.environ.get("WANDB_MODE") or self._mode
        if asked == "disabled":
            return "disabled"
        if asked in ("auto", "online", "shared") and _has_key():
            return "online"
        if asked == "online":
            logger.warning("W&B: there is no key (WANDB_API_KEY, wandb login); offline")
        return "offline"

    def _run_folder(self) -> str:
        assert self._run is not None
        return str(Path(self._run.dir).parent)


def _has_key() -> bool:
    """Whether W&B would find a key without asking: in the environment, or in the netrc file."""
    if any(os.environ.get(name) for name in _KEY_VARIABLES):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


@contextlib.contextmanager
def _own_caches(folder: Path) -> Iterator[None]:
    """Let the process that W&B starts keep its logs in the run folder, and report nothing."""
    given: dict[str, Any] = {"WANDB_CACHE_DIR": str(folder), "WANDB_ERROR_REPORTING": "false"}
    added = {name: value for name, value in given.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
