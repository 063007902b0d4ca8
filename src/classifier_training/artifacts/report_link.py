"""Where a run's report lies, and how a page beside it links there."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from classifier_training.artifacts.run_folder import RUN_JSON

REPORT_NAME = "report.html"


def find_report(run: Path) -> Path | None:
    """Return the report of a run, None without one; ``run`` may also be the ONNX of a run."""
    folder = run if run.is_dir() else run.parent
    report = folder / REPORT_NAME
    return report if (folder / RUN_JSON).is_file() and report.is_file() else None


def relative_link(target: Path, home: Path) -> str:
    """Return the link from a page in the folder ``home``, fit for an attribute or Markdown."""
    relative = os.path.relpath(target.resolve(), home.resolve())
    return quote(os.fsencode(Path(relative).as_posix()))
