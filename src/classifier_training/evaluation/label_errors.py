"""Find labels that are probably wrong, and write them down for a person to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier_training.data.corrections import ACTION, CORRECTED
from classifier_training.data.loading import resolve_workers
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import SPLITS
from classifier_training.errors import ConfigError
from classifier_training.evaluation.confident_learning import Suspicion
from classifier_training.evaluation.evaluate import make_folder
from classifier_training.evaluation.label_evidence import (
    HELD_OUT,
    KINDS,
    NEIGHBOURS,
    ask_neighbours,
    collect_predictions,
    group_numbers,
    require_same_data,
)
from classifier_training.evaluation.models import usable_device
from classifier_training.inference.prediction_files import format_float
from classifier_training.metrics.intervals import Estimate, wilson
from classifier_training.plots.label_sheet import Thumbnail, write_sheet
from classifier_training.run.reader import Run
from classifier_training.system.tables import read_table, write_table

TABLE, SHEET, NOISE = "suspects.csv", "suspects.png", "label_noise.csv"
COLUMNS = (
    "rank",
    "path",
    "split",
    "given",
    "predicted",
    CORRECTED,
    ACTION,
    "suspect",
    "self_confidence",
    "loss",
    "margin",
    "evidence",
    "duplicate_group",
)
# How much more often than of held-out images the neighbours may agree with training labels.
_MEMORISED = 0.05
_NOISE_COLUMNS = ("class", "images", "suspects", "noise_rate", "low", "high", "confused_with")


@dataclass(frozen=True)
class ClassNoise:
    """How many labels of a class are wrong.

    Attributes:
        name: The class as given.
        images: Images of it that were judged.
        suspects: Of these, taken by confident learning.
        rate: Share of wrong labels as the confident joint estimates it; None without a count. Its
            interval is that of the counting alone, not of the classifier's errors.
        confused_with: The class that most of these should be; empty when there are none.
    """

    name: str
    images: int
    suspects: int
    rate: Estimate | None
    confused_with: str


@dataclass(frozen=True)
class LabelErrors:
    """Labels that a prediction contradicts, the most suspect first.

    Attributes:
        manifest: The images.
        rows: ``(M,)`` manifest indices of the judged images.
        suspicion: What was found about each of them.
        listed: Positions in ``rows`` where the prediction contradicts the label, ranked.
        kinds: ``(M,)`` indices into ``KINDS``.
        copies: ``(M,)`` number of the copies that the image is one of; 0 for none.
        noise: One entry a class, in index order.
        unjudged: Number of images without evidence.
        folder: Where the files were written.
    """

    manifest: Manifest
    rows: npt.NDArray[np.int64]
    suspicion: Suspicion
    listed: npt.NDArray[np.intp]
    kinds: npt.NDArray[np.int8]
    copies: npt.NDArray[np.int64]
    noise: tuple[ClassNoise, ...]
    unjudged: int
    folder: Path

    @property
    def memorised(self) -> str:
        """Say that the network knows its training labels by heart, wrong ones too; mostly empty.

        Its features then put an image among those of its wrong label: on jersey numbers with 10 %
        planted errors the first k listed were right in 0.90 at the best epoch of an overfitted
        run (agreement 2 points above val), in 0.09 nine epochs later (about 13 points).
        """
        labels = self.manifest.labels[self.rows]
        agrees = self.suspicion.predicted == labels
        train, held_out = self.kinds == NEIGHBOURS, self.kinds == HELD_OUT
        if not (train.any() and held_out.any()):
            return ""
        known, measured = float(agrees[train].mean()), float(agrees[held_out].mean())
        if known - measured <= _MEMORISED:
            return ""
        return (
            f"the network has learned its training labels by heart: features agree with {known:.1%}"
            f" of them, predictions with {measured:.1%} of held-out labels. Errors among training "
            "labels stay hidden; cross-validate (data.split.folds) and give all runs, or stop "
            "training earlier"
        )

    def cells(self, position: int) -> dict[str, str]:
        """Return a judged image as a row of ``suspects.csv``, without its rank."""
        row, found = int(self.rows[position]), self.suspicion
        names = self.manifest.class_map.names
        return {
            "path": self.manifest.paths[row],
            "split": SPLITS[self.manifest.splits[row]],
            "given": names[self.manifest.labels[row]],
            "predicted": names[found.predicted[position]],
            CORRECTED: "",
            ACTION: "",
            "suspect": "yes" if found.is_suspect[position] else "no",
            "self_confidence": format_float(found.self_confidence[position]),
            "loss": format_float(found.loss[position]),
            "margin": format_float(found.margin[position]),
            "evidence": KINDS[self.kinds[position]],
            "duplicate_group": str(self.copies[position] or ""),
        }


def find_label_errors(
    runs: Sequence[Path | str],
    *,
    out: Path | str | None = None,
    data_root: Path | str | None = None,
    device: str = "cpu",
    batch_size: int = 32,
    workers: int | None = None,
    top: int = 48,
    on_images: Callable[[int, int], None] | None = None,
) -> LabelErrors:
    """Rank the labels of a run's images by how much predictions contradict them.

    Writes ``suspects.csv``, ``suspects.png`` and ``label_noise.csv``; never touches the data.

    Args:
        runs: Run folders; several of one cross-validation give every image a prediction of a
            network that did not train on it.
        out: Where to write; by default ``suspects`` in the first run.
        data_root: Where the data lies now, if it moved.
        device: A torch device.
        batch_size: Images at a time.
        workers: Loader processes; by default by the allowed cores.
        top: Number of images on the contact sheet.
        on_images: Called with (done, total) while training images are embedded.

    Raises:
        ResumeError: A folder is no run, or no epoch was finished in it.
        DataError: Images or predictions are missing, or the runs are of other data.
        ConfigError: The device cannot be used, or ``out`` cannot be written to or holds
            corrections made by hand.
    """
    usable = usable_device(device)
    stored = [Run(run, data_root=data_root) for run in runs]
    first = stored[0]
    require_same_data(stored)
    folder = first.folder.path / "suspects" if out is None else Path(out)
    _refuse_handwork(folder / TABLE)
    groups = group_numbers(first)
    evidence = collect_predictions(stored)
    make_folder(folder)
    evidence = ask_neighbours(
        evidence,
        first,
        groups,
        batch_size=batch_size,
        workers=resolve_workers("auto" if workers is None else workers),
        device=usable,
        on_images=on_images or (lambda _done, _total: None),
    )
    labels = first.manifest.labels
    rows, found = evidence.judge(labels)
    ranking = found.ranking()
    errors = LabelErrors(
        manifest=first.manifest,
        rows=rows,
        suspicion=found,
        listed=ranking[(found.predicted != labels[rows])[ranking]],
        kinds=evidence.kinds[rows],
        copies=groups[rows, 0],
        noise=_noise(first.manifest, labels[rows], found),
        unjudged=len(labels) - len(rows),
        folder=folder,
    )
    _write(errors, top)
    return errors


def _noise(
    manifest: Manifest, labels: npt.NDArray[np.int64], found: Suspicion
) -> tuple[ClassNoise, ...]:
    names = manifest.class_map.names
    entries = []
    for given, name in enumerate(names):
        counts = found.counts[given].copy()
        total, counts[given] = int(counts.sum()), 0
        wrong = int(counts.sum())
        entries.append(
            ClassNoise(
                name=name,
                images=int((labels == given).sum()),
                suspects=int(found.is_suspect[labels == given].sum()),
                rate=wilson(wrong, total) if total else None,
                confused_with=names[counts.argmax()] if wrong else "",
            )
        )
    return tuple(entries)


def _write(errors: LabelErrors, top: int) -> None:
    thumbnails = []
    for number, position in enumerate(errors.listed[:top], start=1):
        cells, row = errors.cells(int(position)), int(errors.rows[position])
        file = errors.manifest.file(row)
        detail = f"#{number} {cells['split']}, margin {errors.suspicion.margin[position]:.2f}"
        thumbnails.append(Thumbnail(file, cells["given"], cells["predicted"], detail))
    write_sheet(thumbnails, errors.folder / SHEET)
    write_table(errors.folder / NOISE, _NOISE_COLUMNS, map(_noise_cells, errors.noise))
    listed = (
        {"rank": str(number), **errors.cells(int(position))}
        for number, position in enumerate(errors.listed, start=1)
    )
    write_table(
        errors.folder / TABLE, COLUMNS, ([row.get(name, "") for name in COLUMNS] for row in listed)
    )


def _noise_cells(entry: ClassNoise) -> tuple[object, ...]:
    rate = entry.rate
    shares = ("", "", "") if rate is None else (rate.value, rate.low, rate.high)
    return entry.name, entry.images, entry.suspects, *shares, entry.confused_with


def _refuse_handwork(table: Path) -> None:
    """Refuse to replace a table that somebody wrote corrections into."""
    fix = "--out DIR for another folder, or move that file away"
    if not table.is_file():
        return
    rows = read_table(table, (CORRECTED, ACTION), fix=fix)
    filled = sum(bool(row[CORRECTED] or row[ACTION]) for row in rows)
    if filled:
        raise ConfigError(
            f"{table} holds {filled} corrections made by hand, which would be lost",
            expected="a folder without them",
            fix=fix,
        )
