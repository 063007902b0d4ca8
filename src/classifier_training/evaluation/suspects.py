"""Which labels are probably wrong: confident learning on predictions that never saw their label.

C. G. Northcutt, L. Jiang, I. L. Chuang: Confident Learning: Estimating Uncertainty in Dataset
Labels, JAIR 70 (2021). In short: a class's threshold is how sure the classifier is, on average, of
images that carry its label; an image that reaches the threshold of a class other than its label
counts as "given i, probably j". These counts, scaled to the size of each class, say how many of the
images given i are really j, and the ones with the widest margin for j are taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suspicion:
    """What the predictions say about each of ``N`` labels.

    Attributes:
        predicted: ``(N,)`` int64, the most probable class.
        self_confidence: ``(N,)`` probability of the given label.
        margin: ``(N,)`` probability of the given label minus that of the best other one, -1..1;
            below 0 the classifier says something else.
        is_suspect: ``(N,)`` bool, taken by confident learning.
        counts: ``(C, C)`` int64 confident joint: given in rows, probable in columns.
    """

    predicted: Labels
    self_confidence: Floats
    margin: Floats
    is_suspect: npt.NDArray[np.bool_]
    counts: Labels

    @property
    def loss(self) -> Floats:
        """``(N,)`` cross-entropy of the given label, in nats, finite."""
        losses: Floats = -np.log(np.maximum(self.self_confidence, np.finfo(np.float64).tiny))
        return losses

    def ranking(self) -> npt.NDArray[np.intp]:
        """Return ``(N,)`` positions, the most suspect first: by margin, then self-confidence.

        The margin alone ranked planted errors better than taking the confident ones first
        (``benchmarks/label_noise.py``); confident learning says where to stop.
        """
        return np.lexsort((self.self_confidence, self.margin))


def judge(labels: Labels, probabilities: npt.NDArray[np.floating]) -> Suspicion:
    """Judge labels by predictions that were made without them.

    Args:
        labels: ``(N,)`` given class indices.
        probabilities: ``(N, C)``, each row sums to 1.
    """
    probs = probabilities.astype(np.float64)
    predicted = probs.argmax(axis=1).astype(np.int64)
    rows = np.arange(len(labels))
    own = probs[rows, labels]
    others = probs.copy()
    others[rows, labels] = -np.inf
    margin = own - others.max(axis=1)
    counts = confident_joint(labels, probs)
    taken = prune_by_noise_rate(labels, probs, expected_counts(counts, labels))
    # A label that the classifier agrees with is no suspect, however unsure it is.
    return Suspicion(predicted, own, margin, taken & (predicted != labels), counts)


def class_thresholds(labels: Labels, probs: Floats) -> Floats:
    """Return ``(C,)`` mean self-confidence of each class (eq. 2); inf for a class without label."""
    classes = probs.shape[1]
    sizes = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=probs[np.arange(len(labels)), labels], minlength=classes)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)


def confident_joint(labels: Labels, probs: Floats) -> Labels:
    """Count ``(C, C)`` images by given label and confident class (eq. 1).

    The confident class is the most probable among those whose threshold is reached; an image that
    reaches none is not counted.
    """
    classes = probs.shape[1]
    # The mean of equal numbers may come out a rounding above them.
    reaches = probs >= class_thresholds(labels, probs) * (1 - 1e-12)
    confident = np.where(reaches, probs, -np.inf).argmax(axis=1)
    counted = reaches.any(axis=1)
    cells = labels[counted] * classes + confident[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def expected_counts(counts: Labels, labels: Labels) -> Floats:
    """Scale the rows of the confident joint to the number of images given each label (eq. 3)."""
    sizes = np.bincount(labels, minlength=len(counts))
    totals = counts.sum(axis=1)
    scaled: Floats = counts * (sizes / np.maximum(totals, 1))[:, None]
    return scaled


def prune_by_noise_rate(labels: Labels, probs: Floats, expected: Floats) -> npt.NDArray[np.bool_]:
    """Take, for each pair i != j, the expected number of images given i with the widest p_j - p_i.

    Returns:
        ``(N,)`` bool.
    """
    taken = np.zeros(len(labels), dtype=bool)
    for given in np.unique(labels):
        rows = np.flatnonzero(labels == given)
        for other in np.flatnonzero(expected[given] > 0):
            if other != given:
                count = int(expected[given, other] + 0.5)
                margins = probs[rows, other] - probs[rows, given]
                taken[rows[np.argsort(-margins, kind="stable")[:count]]] = True
    return taken
