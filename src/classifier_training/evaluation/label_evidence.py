"""Predictions of images whose labels the predictor did not learn from, gathered from runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from classifier_training.data.image_stats import ImageStats
from classifier_training.data.manifest import Manifest
from classifier_training.errors import DataError
from classifier_training.evaluation.confident_learning import Suspicion, judge, leave_one_out
from classifier_training.evaluation.models import embed, exact_fp32
from classifier_training.inference.prediction_files import PROBABILITY_PREFIX
from classifier_training.run.reader import Run

# Where a prediction comes from:
# held-out     the run's own network, which did not train on the image;
# out-of-fold  the network of the run (of several) for which the image was validation;
# neighbours   the nearest training images in feature space, the image itself left out.
KINDS = ("held-out", "out-of-fold", "neighbours")
HELD_OUT, OUT_OF_FOLD, NEIGHBOURS = range(len(KINDS))
_NOBODY = -1


@dataclass(frozen=True)
class LabelEvidence:
    """What is known about the label of each of the ``N`` images of a manifest.

    Attributes:
        probabilities: ``(N, C)`` float64; zeros where nothing is known.
        kinds: ``(N,)`` int8 indices into :data:`KINDS`, -1 where nothing is known.
    """

    probabilities: npt.NDArray[np.float64]
    kinds: npt.NDArray[np.int8]

    def judge(self, labels: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Suspicion]:
        """Judge the labels, each kind by its own thresholds: their confidences differ.

        Returns:
            ``(M,)`` the rows that can be judged, and what was found about them.
        """
        parts = []
        for kind in range(len(KINDS)):
            rows = np.flatnonzero(self.kinds == kind)
            if len(rows):
                parts.append((rows, judge(labels[rows], self.probabilities[rows])))
        rows = np.concatenate([rows for rows, _ in parts])
        found = Suspicion(
            predicted=np.concatenate([part.predicted for _, part in parts]),
            self_confidence=np.concatenate([part.self_confidence for _, part in parts]),
            margin=np.concatenate([part.margin for _, part in parts]),
            is_suspect=np.concatenate([part.is_suspect for _, part in parts]),
            counts=np.sum([part.counts for _, part in parts], axis=0),
        )
        return rows, found


def collect_predictions(runs: Sequence[Run]) -> LabelEvidence:
    """Collect what runs predicted for their val and test images.

    An image that several runs predicted gets the mean of their probabilities.

    Args:
        runs: Of the same data, see :func:`require_same_data`; rows are those of the first.

    Raises:
        DataError: Predictions are missing or of other data.
    """
    manifest = runs[0].manifest
    sums = np.zeros((len(manifest), len(manifest.class_map)))
    times = np.zeros(len(manifest), dtype=np.int64)
    kinds = np.full(len(manifest), _NOBODY, dtype=np.int8)
    row_of = {path: row for row, path in enumerate(manifest.paths)}
    for run in runs:
        for split in ("test", "val"):
            for path, probabilities in _predictions(run, split).items():
                row = row_of[path]
                sums[row] += probabilities
                times[row] += 1
                kinds[row] = OUT_OF_FOLD if split == "val" and len(runs) > 1 else HELD_OUT
    return LabelEvidence(sums / np.maximum(times, 1)[:, None], kinds)


def ask_neighbours(
    evidence: LabelEvidence,
    run: Run,
    groups: npt.NDArray[np.int64],
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    on_images: Callable[[int, int], None],
) -> LabelEvidence:
    """Complete the evidence for images that no run predicted: the training images of a single run.

    Args:
        evidence: What is known.
        run: Its best network makes the features.
        groups: ``(N, G)`` numbers of what belongs together in its manifest.
        batch_size: Images at a time.
        workers: Loader processes.
        device: Where to compute.
        on_images: Called with (done, total), first of embedding, then of asking.

    Raises:
        DataError: An image cannot be read.
    """
    manifest = run.manifest
    rest = np.flatnonzero(evidence.kinds == _NOBODY)
    if not len(rest):
        return evidence
    exact_fp32()
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        on_images(done, len(rest))

    features = embed(
        run.model(),
        manifest,
        rest,
        batch_size=batch_size,
        workers=workers,
        device=device,
        on_images=report,
    )
    probabilities, kinds = evidence.probabilities.copy(), evidence.kinds.copy()
    probabilities[rest], judged = leave_one_out(
        features,
        manifest.labels[rest],
        groups[rest],
        len(manifest.class_map),
        on_images=on_images,
    )
    kinds[rest[judged]] = NEIGHBOURS
    return LabelEvidence(probabilities, kinds)


def require_same_data(runs: Sequence[Run]) -> None:
    """Refuse runs whose images, labels or classes differ.

    Raises:
        DataError: Naming the first difference.
    """
    first = runs[0]
    content = _content(first.manifest)
    for other in runs[1:]:
        difference = ""
        if other.manifest.class_map.names != first.manifest.class_map.names:
            difference = "their classes differ"
        else:
            theirs = _content(other.manifest)
            for path in sorted(content.keys() | theirs.keys()):
                if content.get(path) != theirs.get(path):
                    difference = f"{path} differs in label or content, or is missing in one"
                    break
        if difference:
            raise DataError(
                f"{first.folder.path} and {other.folder.path} are runs of other data: {difference}",
                expected="runs of one cross-validation: the same images with the same labels",
                fix="give the runs of one sweep, or ask about each run alone",
            )


def group_numbers(run: Run) -> npt.NDArray[np.int64]:
    """Number the copies in a run's manifest, and its groups.

    Copies have the same bytes, or the same pixels where the run measured them.

    Returns:
        ``(N, 2)``: number of the copies and of the group, each from 1; 0 is on its own.
    """
    manifest = run.manifest
    hashes = manifest.hashes
    facts = run.folder.image_stats
    if facts.is_file():
        measured = ImageStats.read(facts, manifest)
        hashes = np.where(measured.decoded[:, None], measured.pixel_hashes, hashes)
    copies = [row.tobytes() for row in hashes]
    return np.stack([_numbered(copies), _numbered(list(manifest.groups))], axis=1)


def _numbered(names: Sequence[str | bytes]) -> npt.NDArray[np.int64]:
    """Number the names that stand more than once, in the order they appear; 0 for the others."""
    numbers: dict[str | bytes, int] = {}
    seen: set[str | bytes] = set()
    for name in names:
        if name and name in seen:
            numbers.setdefault(name, len(numbers) + 1)
        seen.add(name)
    return np.array([numbers.get(name, 0) for name in names], dtype=np.int64)


def _content(manifest: Manifest) -> dict[str, tuple[int, bytes]]:
    return {
        path: (int(manifest.labels[row]), manifest.hashes[row].tobytes())
        for row, path in enumerate(manifest.paths)
    }


def _predictions(run: Run, split: str) -> dict[str, npt.NDArray[np.float64]]:
    """Read the probabilities of a split by path; nothing for a split that the run has not.

    Raises:
        DataError: The file is missing, or does not belong to the run's manifest.
    """
    manifest = run.manifest
    rows = manifest.rows(split)
    if not len(rows):
        return {}
    found = run.predictions(split)
    file = run.folder.evaluation(split) / "predictions.csv"
    fix = f"classifier evaluate {run.path} --split {split}"
    names = manifest.class_map.names
    expected = {manifest.paths[int(row)]: names[manifest.labels[row]] for row in rows}
    labels = (found.classes[label] for label in found.true)
    if dict(zip(found.paths, labels, strict=True)) != expected:
        raise _foreign(file, "its paths and labels are not those of the run's manifest", fix)
    if found.classes != names or found.probabilities is None:
        columns = f"{PROBABILITY_PREFIX}CLASS"
        raise _foreign(file, f"its columns {columns} are not those of the run's classes", fix)
    if not np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-3):
        raise _foreign(file, "the probabilities of an image do not sum to 1", fix)
    return dict(zip(found.paths, found.probabilities, strict=True))


def _foreign(file: Path, reason: str, fix: str) -> DataError:
    return DataError(
        f"{file} cannot be used: {reason}",
        expected="what `classifier evaluate` wrote for this run",
        fix=fix,
    )
