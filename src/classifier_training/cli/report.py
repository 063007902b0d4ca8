"""``classifier report``: the run as one HTML file. No torch."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError
from classifier_training.system.progress import progress


def run_report(
    run: Path,
    *,
    out: Path | None,
    previous: Path | None,
    data_root: Path | None,
    debug: bool,
) -> int:
    """Write the report and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        for package in ("jinja2", "scipy", "yaml"):
            if find_spec(package) is None:
                raise need_extra(package, "train")
        from classifier_training.report.render import write_report

        try:
            with progress("report") as on_images:
                path = write_report(
                    run, out=out, previous=previous, data_root=data_root, on_images=on_images
                )
        except OSError as error:
            raise ConfigError(
                f"cannot write the report {run / 'report.html' if out is None else out}: "
                f"{error.strerror or error}",
                expected="a file in a folder that can be written",
                fix="choose another with --out FILE",
            ) from error
        sys.stdout.write(f"{path}  open it in a browser; it is complete in itself\n")
        sys.stdout.flush()
        return EXIT_OK

    return guarded(task, debug=debug)
