"""What the images around an image say it is: a leave-one-out classifier in feature space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

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
