"""Whether a job that is started again should train: after a preemption, and not after a failure."""

from __future__ import annotations

import os
from typing import Any

from classifier_training.errors import EXIT_UNEXPECTED, ClassifierTrainingError

# Set by `classifier submit`, new for each submission.
SUBMISSION = "CLASSIFIER_TRAINING_SUBMISSION"


class FailedBeforeError(ClassifierTrainingError):
    """The same submission failed already; ends with the exit code it had."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(
            f"this job was started again, but it failed before: {what}",
            expected="another start only after a preemption",
            mend="mend the cause, then submit the same command again; the run goes on",
        )
        self.exit_code = exit_code


def failure_of(error: Exception) -> dict[str, Any]:
    """Return what ``run.json`` keeps of a failure."""
    if isinstance(error, ClassifierTrainingError):
        code, what = error.exit_code, error.what
    else:
        code, what = EXIT_UNEXPECTED, f"{type(error).__name__}: {error}"
    return {
        "exit_code": code,
        "what": what[:500],
        "submission": os.environ.get(SUBMISSION),
    }


def refuse_after_failure(record: dict[str, Any]) -> None:
    """End a job that the service started again although the program had failed.

    Raises:
        FailedBeforeError: It did, in this very submission.
    """
    submission = os.environ.get(SUBMISSION)
    failure = record["failure"] if record["status"] == "failed" and "failure" in record else None
    if submission and failure is not None and failure["submission"] == submission:
        raise FailedBeforeError(failure["what"], failure["exit_code"])
