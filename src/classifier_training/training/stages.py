"""The stages of a run: their wall time, what may fail, and what a failure leaves in the record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from classifier_training.artifacts.restarts import failure_of
from classifier_training.artifacts.run_folder import RunFolder
from classifier_training.artifacts.run_log import log_failure
from classifier_training.errors import InterruptedRunError


@contextlib.contextmanager
def stage(folder: RunFolder, name: str) -> Iterator[None]:
    """Add the wall time of a stage to the record, over all parts of the run."""
    started = time.monotonic()
    try:
        yield
    finally:
        times = folder.read_record()["stages_s"]
        total = times.get(name, 0.0) + time.monotonic() - started
        folder.update_record({"stages_s": {**times, name: round(total, 3)}})


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Log that something could not be made on which no score and no artefact depends."""
    try:
        yield
    except InterruptedRunError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the run matters more
        log_failure(error, "{} could not be made; the run goes on", what)


@contextlib.contextmanager
def status(folder: RunFolder) -> Iterator[None]:
    """Leave in the record how a run ended that did not finish."""
    try:
        yield
    except (InterruptedRunError, KeyboardInterrupt, SystemExit):
        folder.update_record({"status": "interrupted"})
        raise
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk may be what failed
            folder.update_record({"status": "failed", "failure": failure_of(error)})
        raise
