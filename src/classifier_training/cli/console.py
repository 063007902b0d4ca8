"""How commands speak: log lines on stderr, errors in three parts, exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from loguru import logger

from classifier_training.errors import (
    EXIT_INTERRUPTED,
    EXIT_UNEXPECTED,
    ClassifierTrainingError,
    ConfigError,
)


def set_up_logging(*, debug: bool) -> None:
    """Send log lines to stderr: coloured on a terminal, plain and flushed elsewhere."""
    logger.remove()
    logger.add(
        sys.stderr,
        format="<dim>{time:HH:mm:ss}</dim> <level>{message}</level>",
        level="DEBUG" if debug else "INFO",
        colorize=sys.stderr.isatty(),
        diagnose=False,  # it would write the values of variables into tracebacks: secrets too
    )


def guarded(task: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command and return its exit code; user errors are told without a traceback."""
    try:
        return task()
    except ClassifierTrainingError as error:
        if debug:
            traceback.print_exc()
        tell(error)
        return error.exit_code
    except BrokenPipeError:
        return EXIT_UNEXPECTED
    except OSError as error:
        if debug:
            traceback.print_exc()
        tell(_disk_error(error))
        return EXIT_UNEXPECTED
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return EXIT_INTERRUPTED


def _disk_error(error: OSError) -> ClassifierTrainingError:
    """Say what the operating system refused; checkpoints written before are whole."""
    place = f": {error.filename}" if error.filename else ""
    return ClassifierTrainingError(
        f"{error.strerror or error}{place}",
        expected="a disk with space that can be read and written",
        mend="free space or mend the permissions, then run the same command again",
    )


def tell(error: ClassifierTrainingError) -> None:
    """Write the three parts of an error to stderr."""
    sys.stderr.flush()
    sys.stderr.write(f"error: {error}\n")
    sys.stderr.flush()


def need_extra(module: str, extra: str) -> ConfigError:
    """Return the error for a command whose packages are not installed."""
    return ConfigError(
        f"this command needs {module}, which is not installed",
        expected=f"the extra [{extra}]",
        mend=f"pip install 'classifier-training[{extra}]'",
    )
