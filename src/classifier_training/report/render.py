"""The content of a report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from classifier_training.report.collect import collect
from classifier_training.report.content import Report
from classifier_training.report.formatting import percent, span
from classifier_training.run.folder import REPORT_NAME
from classifier_training.system.files import replacing
from classifier_training.system.progress import OnProgress


def write_report(
    run: Path,
    *,
    out: Path | None = None,
    previous: Path | None = None,
    data_root: Path | None = None,
    on_images: OnProgress = lambda _done, _total: None,
) -> Path:
    """Write the report of a run from what lies in its folder; nothing is computed again.

    Args:
        run: Its folder.
        out: The file; by default ``report.html`` in the run.
        previous: A run to compare with.
        data_root: Where the images lie now, if they moved.
        on_images: Called with (done, total) while images are shrunk.

    Returns:
        The file.

    Raises:
        ResumeError: ``run`` is no run folder.
        DataError: It was not evaluated, a file is damaged, or the previous run answered none of
            the same images.
    """
    report = collect(run, previous=previous, data_root=data_root, on_images=on_images)
    path = run / REPORT_NAME if out is None else out
    # Paths may hold bytes, and names lone surrogates, that are no UTF-8.
    content = render(report).encode("utf-8", "backslashreplace")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def render(report: Report) -> str:
    """Return the HTML: every text escaped, script and style allowed by their hashes alone."""
    style, script = _resource("report.css"), _resource("report.js")
    return _environment().get_template("report.html.j2").render(
        report=report,
        style=style,
        script=script,
        policy=content_security_policy(style, script),
    )  # fmt: skip


def content_security_policy(style: str, script: str) -> str:
    """Forbid everything but our own style and script and pictures in the file itself."""
    return (
        "default-src 'none'; img-src data:; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("classifier_training.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "span": span}
    return environment


@functools.cache
def _resource(name: str) -> str:
    return files("classifier_training.report").joinpath("templates", name).read_text("utf-8")
