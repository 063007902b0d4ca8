"""What a check reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from classifier_training.data.manifest import Manifest
from classifier_training.data.records import SPLITS

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Item(NamedTuple):
    """One instance of a finding.

    ``rows`` are the manifest rows that it is about (two for a pair of copies, none when it is about
    a class), ``detail`` says what about them.
    """

    rows: tuple[int, ...]
    detail: str


@dataclass(frozen=True)
class Finding:
    """Everything of one kind that was found.

    Attributes:
        code: Name of the kind, as ``docs/data-checks.md`` lists it.
        severity: An error stops a training run; a warning and a note do not.
        message: What was found, with its number.
        expected: What was expected instead.
        fix: What to change.
        items: The instances, in the order of the manifest.
    """

    code: str
    severity: Severity
    message: str
    expected: str
    fix: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Limits:
    """What the checks judge by; the keys of ``data`` with the same names say what each means."""

    near_duplicate_distance: int
    min_image_side: int
    max_aspect_ratio: float
    min_class_images: int


def describe_item(item: Item, manifest: Manifest | None) -> str:
    """Return an instance as one line: files with the lines that listed them, and the detail.

    Names of files and classes cannot break the line or command the terminal.
    """
    files = " = ".join(manifest.describe(row) for row in item.rows) if manifest else ""
    text = f"{files}: {item.detail}" if files else item.detail
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def to_json(findings: Iterable[Finding], manifest: Manifest | None) -> list[dict[str, Any]]:
    """Return findings as plain values, each image with its path, label, split and line."""
    return [
        {
            "code": finding.code,
            "severity": finding.severity,
            "message": finding.message,
            "expected": finding.expected,
            "fix": finding.fix,
            "count": len(finding.items),
            "items": [
                {
                    "detail": item.detail,
                    "images": [_image(row, manifest) for row in item.rows] if manifest else [],
                }
                for item in finding.items
            ],
        }
        for finding in findings
    ]


def _image(row: int, manifest: Manifest) -> dict[str, Any]:
    return {
        "path": _readable(manifest.paths[row]),
        "label": manifest.class_map.names[manifest.labels[row]],
        "split": SPLITS[manifest.splits[row]],
        "source": _readable(manifest.sources[row]),
        "line": int(manifest.lines[row]),
    }


def _readable(path: str) -> str:
    r"""Return a path that is Unicode text: bytes that are none become ``\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
