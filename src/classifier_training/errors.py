"""One root for every error that a user can cause, and the exit code each one ends with.

A message has three parts: what happened and where, what was expected, and how to fix it. The
command line prints the three and no traceback; Python callers get them as attributes.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_CONFIG = 2
EXIT_DATA = 3
EXIT_DIVERGED = 4
EXIT_EXPORT = 5
EXIT_RESUME = 6
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class ClassifierTrainingError(Exception):
    """Root of the errors that are the user's to fix.

    Args:
        what: What happened, and where (file, line, key, step).
        expected: What was expected instead.
        fix: What to type or change to fix it.
    """

    exit_code = EXIT_UNEXPECTED

    def __init__(self, what: str, *, expected: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  expected: {self.expected}\n  fix:      {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own would call the constructor without the keyword arguments; errors cross
        # from loader processes to the main one.
        return _revive, (type(self), self.args, self.__dict__)


def _revive(
    cls: type[ClassifierTrainingError], args: tuple[object, ...], state: dict[str, object]
) -> ClassifierTrainingError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration: where it stands, what is wrong, what is allowed."""

    key: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}\n      fix: {self.fix}"


class ConfigError(ClassifierTrainingError):
    """The command line, a YAML file or the machine does not fit what was asked for.

    ``problems`` lists every fault found, so that one run of the command shows them all.
    """

    exit_code = EXIT_CONFIG

    def __init__(
        self, what: str, *, expected: str, fix: str, problems: tuple[Problem, ...] = ()
    ) -> None:
        super().__init__(what, expected=expected, fix=fix)
        self.problems = problems

    def __str__(self) -> str:
        listed = "".join(f"\n    - {problem}" for problem in self.problems)
        head, _, tail = super().__str__().partition("\n")
        return f"{head}{listed}\n{tail}"


class DataError(ClassifierTrainingError):
    """Images, labels or their files are missing, unreadable or contradict each other."""

    exit_code = EXIT_DATA


class DivergedError(ClassifierTrainingError):
    """The loss or the weights stopped being finite."""

    exit_code = EXIT_DIVERGED


class ExportError(ClassifierTrainingError):
    """An artefact could not be made, or does not do what the run measured."""

    exit_code = EXIT_EXPORT


class ResumeError(ClassifierTrainingError):
    """A run folder or checkpoint does not belong to the run that was asked for."""

    exit_code = EXIT_RESUME


class InterruptedRunError(ClassifierTrainingError):
    """A signal stopped the run after it had saved; the same command goes on.

    Args:
        exit_code: 143 after SIGTERM, 130 after SIGINT.
    """

    def __init__(self, what: str, *, expected: str, fix: str, exit_code: int) -> None:
        super().__init__(what, expected=expected, fix=fix)
        self.exit_code = exit_code
