"""Which labels are probably wrong: confident learning on predictions that never saw their label.

C. G. Northcutt, L. Jiang, I. L. Chuang: Confident Learning: Estimating Uncertainty in Dataset
Labels, JAIR 70 (2021). In short: a class's threshold is how sure the classifier is, on average, of
images that carry its label; an image that reaches the threshold of a class other than its label
counts as "given i, probably j". These counts, scaled to the size of each class, say how many of the
images given i are really j, and the ones with the widest margin for j are taken.
"""

from __future__ import annotations

from collections.abc import Callable
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


# Wu, Xiong, Yu, Lin: Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
# CVPR 2018, section 3.4 (temperature 0.07).
NEIGHBOURS = 30
TEMPERATURE = 0.07
# So that no probability is 0, this share of each row is the frequencies of the labels.
_PRIOR = 0.01
# References are drawn from larger data: cost is images times references.
MOST_REFERENCES = 50_000
_CHUNK = 512


def leave_one_out(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    apart: npt.NDArray[np.int64],
    classes: int,
    *,
    on_images: Callable[[int, int], None] | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Let the nearest neighbours of each image vote, weighted by ``exp(cosine / temperature)``.

    An image never votes for itself, nor do those it shares a number of ``apart`` with: a copy with
    the same wrong label would hide it.

    Args:
        features: ``(N, D)``.
        labels: ``(N,)`` class indices.
        apart: ``(N, G)`` numbers of what belongs together; 0 is on its own.
        classes: ``C``.
        on_images: Called with (done, total).

    Returns:
        ``(N, C)`` probabilities, and ``(N,)`` whether the image can be judged: there is another
        one of its label that may vote.
    """
    count = len(labels)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(norms, np.finfo(np.float32).tiny)
    references = np.arange(count)
    if count > MOST_REFERENCES:
        references = np.sort(np.random.default_rng(0).choice(count, MOST_REFERENCES, replace=False))
    prior = np.bincount(labels, minlength=classes) / count
    votes = np.zeros((count, classes))
    judged = np.zeros(count, dtype=bool)
    for start in range(0, count, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, count))
        may_vote = rows[:, None] != references
        for numbers in apart.T:
            same = numbers[rows][:, None] == numbers[references]
            may_vote &= ~(same & (numbers[rows] != 0)[:, None])
        similar = np.where(may_vote, unit[rows] @ unit[references].T, -np.inf)
        votes[rows] = _vote(similar, labels[references], classes)
        judged[rows] = (may_vote & (labels[rows][:, None] == labels[references])).any(axis=1)
        if on_images is not None:
            on_images(int(rows[-1]) + 1, count)
    totals = votes.sum(axis=1, keepdims=True)
    shares = np.divide(votes, totals, out=np.tile(prior, (count, 1)), where=totals > 0)
    return (1 - _PRIOR) * shares + _PRIOR * prior, judged


def _vote(
    similar: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.float64]:
    """Return ``(n, C)`` summed weights of the nearest of ``(n, R)``, the nearest weighing 1."""
    most = min(NEIGHBOURS, similar.shape[1])
    nearest = np.argpartition(-similar, most - 1, axis=1)[:, :most]
    cosines = np.take_along_axis(similar, nearest, axis=1).astype(np.float64)
    best = cosines.max(axis=1, keepdims=True)
    best[~np.isfinite(best)] = 0.0  # nobody may vote
    weights = np.exp((cosines - best) / TEMPERATURE)
    votes = np.zeros((len(similar), classes))
    np.add.at(votes, (np.arange(len(similar))[:, None], labels[nearest]), weights)
    return votes
