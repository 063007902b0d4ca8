"""What stands in a report, ready to be laid out: texts, written numbers, coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from classifier_training.report.charts import Chart
from classifier_training.report.evidence import Cause
from classifier_training.report.formatting import Interval
from classifier_training.report.matrix import Matrix
from classifier_training.report.settings import Settings

Tone = Literal["good", "plain", "warn"]


@dataclass(frozen=True)
class Note:
    """A sentence of the verdict, and whether it is good news."""

    tone: Tone
    text: str


@dataclass(frozen=True)
class ScoreRow:
    """A metric on each evaluated split: (value, bounds) as text."""

    title: str
    is_monitored: bool
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Verdict:
    """The first thing that is read.

    Attributes:
        figure: The headline score as text.
        claim: What it says, in plain words.
        bounds: Its interval, in words.
        notes: What puts it into proportion.
        splits: Names of the columns of ``rows``, with their number of images.
        rows: All headline scores.
    """

    figure: str
    claim: str
    bounds: str
    notes: tuple[Note, ...]
    splits: tuple[str, ...]
    rows: tuple[ScoreRow, ...]


@dataclass(frozen=True)
class Fact:
    """A name and a value."""

    name: str
    value: str


@dataclass(frozen=True)
class Table:
    """A plain table, the first column being what a row is about."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class FindingShown:
    """What a check of the data found."""

    severity: str
    code: str
    message: str
    fix: str
    items: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class DataSection:
    """What was trained on."""

    splits: Table
    counts: Chart | None
    is_checked: bool
    is_decoded: bool
    findings: tuple[FindingShown, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Curves:
    """Training over the epochs: charts, and the numbers in them."""

    charts: tuple[Chart, ...]
    table: Table


@dataclass(frozen=True)
class ClassRow:
    """A class of the per-class table; a score without images is None."""

    index: int
    name: str
    train: int | None
    support: int
    recall: Interval | None
    precision: Interval | None
    f1: Interval | None
    mostly: str
    mostly_index: int | None
    mostly_count: int


@dataclass(frozen=True)
class Tile:
    """An image of a gallery. ``uri`` is None where it could not be read."""

    uri: str | None
    path: str
    true: str
    predicted: str
    is_right: bool
    confidence: str
    second: str = ""
    second_confidence: str = ""
    split: str = ""


@dataclass(frozen=True)
class Gallery:
    """Images that are worth looking at."""

    worst: tuple[Tile, ...]
    unsure: tuple[Tile, ...]
    overlays: tuple[Tile, ...]
    missing: int
    left_out: int


@dataclass(frozen=True)
class CalibrationSection:
    """Whether the confidence can be believed, and what it is good for."""

    charts: tuple[Chart, ...]
    sentences: tuple[str, ...]
    gains: Table | None


@dataclass(frozen=True)
class Deployment:
    """How the exported model is used; None in a report of a run without export."""

    files: tuple[Fact, ...]
    with_package: str
    without_package: str


@dataclass(frozen=True)
class Report:
    """Everything, in the order in which it is read.

    Attributes:
        name: Of the run's folder.
        subtitle: Model, data and when.
        status: ``finished``, or what else the run is.
        split: The split that the details are about.
        images: How many it has.
        verdict: First.
        curves: None without a history.
        data: None without statistics.
        classes: One row a class.
        matrix: The confusion matrix.
        behind: What stands behind its cells, for the script: plain JSON values.
        gallery: Images.
        calibration: Of the confidence.
        causes: Ranked.
        errors: Number of wrong answers.
        settings: Configuration.
        environment: Versions and machine.
        model: Parameters, size and speed, where they were measured.
        command: The exact command that makes the run again.
        reproduce: What else it depends on.
        deployment: None without an export.
    """

    name: str
    subtitle: str
    status: str
    split: str
    images: int
    verdict: Verdict
    curves: Curves | None
    data: DataSection | None
    classes: tuple[ClassRow, ...]
    matrix: Matrix
    behind: dict[str, Any]
    gallery: Gallery
    calibration: CalibrationSection
    causes: tuple[Cause, ...]
    errors: int
    settings: Settings
    environment: tuple[Fact, ...]
    model: tuple[Fact, ...]
    command: str
    reproduce: tuple[Fact, ...]
    deployment: Deployment | None
