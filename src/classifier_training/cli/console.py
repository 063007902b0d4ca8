"""How commands speak: log lines on stderr, errors in three parts, exit codes."""

from __future__ import annotations

import errno
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

_ANY_DISK = ("a disk with space that can be read and written", "free space or fix the permissions")
_DISK_FIXES = {
    errno.ENOSPC: ("free space on that disk", "free some (classifier doctor shows how much)"),
    errno.EDQUOT: ("space within your quota on that disk", "free some, or have the quota raised"),
    errno.EROFS: (
        "a disk that can be written",
        "mount it for writing; after a fault of the disk the system mounts it read-only (dmesg)",
    ),
    errno.EIO: ("a disk or mount that works", "find out what failed (dmesg) and fix that"),
}


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
    expected, fix = _DISK_FIXES.get(error.errno or 0, _ANY_DISK)
    return ClassifierTrainingError(
        f"{error.strerror or error}{place}",
        expected=expected,
        fix=f"{fix}, then run the same command again (a training run goes on from its last "
        "checkpoint)",
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
        fix=f"pip install 'classifier-training[{extra}]'",
    )
