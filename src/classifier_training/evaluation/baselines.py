"""What a model must beat: nearest neighbours and a linear probe on features that nobody tuned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger
from scipy import optimize, special

from classifier_training.data.manifest import Manifest
from classifier_training.errors import ClassifierTrainingError
from classifier_training.evaluation.models import embed
from classifier_training.models.classifier import Classifier
from classifier_training.run.checkpoint import TrainedModel
from classifier_training.run.reader import Run

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

NEIGHBOURS = 5
# Inverse strength of the L2 penalty, as scikit-learn's LogisticRegression has it.
INVERSE_PENALTY = 1.0
_MOST_STEPS = 1000
_TOLERANCE = 1e-4
_CHUNK = 1024


@dataclass(frozen=True)
class Baselines:
    """Answers of the baselines.

    Attributes:
        features: Whose features: ``initial_backbone`` (as training began) or ``trained_network``.
        answers: ``(N,)`` predicted classes by name: ``knn``, ``linear_probe``.
    """

    features: str
    answers: dict[str, Indices]


def answer_baselines(
    run: Run,
    images: Manifest,
    rows: Indices,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    on_images: Callable[[int, int], None] | None,
) -> Baselines:
    """Fit the baselines on the training images and answer with them.

    Args:
        run: Its training images are learnt from; its preprocessing is used.
        images: Where the evaluated images are.
        rows: ``(N,)`` evaluated images in it.
        batch_size: Images at a time.
        workers: Loader processes.
        device: Where to compute.
        on_images: Called with (done, total).
    """
    manifest = run.manifest
    train_rows = manifest.rows("train")
    name, frozen = _frozen(run)
    total, done = len(train_rows) + len(rows), 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if on_images is not None:
            on_images(done, total)

    train, test = (
        embed(
            frozen,
            where,
            which,
            batch_size=batch_size,
            workers=workers,
            device=device,
            on_images=report,
        ).astype(np.float64)
        for where, which in ((manifest, train_rows), (images, rows))
    )
    labels, classes = manifest.labels[train_rows], len(manifest.class_map)
    return Baselines(
        name,
        {
            "knn": nearest_neighbours(train, labels, test, classes),
            "linear_probe": linear_probe(train, labels, test),
        },
    )


def nearest_neighbours(
    train: Floats, labels: Indices, test: Floats, classes: int, *, neighbours: int = NEIGHBOURS
) -> Indices:
    """Let the nearest training images by cosine vote; of equal votes the first class wins.

    Args:
        train: ``(M, D)`` features.
        labels: ``(M,)`` class indices.
        test: ``(N, D)`` features.
        classes: ``C``.
        neighbours: How many vote, all if there are fewer.

    Returns:
        ``(N,)`` class indices.
    """
    most = min(neighbours, len(train))
    left, right = _unit(test), _unit(train)
    answers = []
    for start in range(0, len(left), _CHUNK):
        cosines = left[start : start + _CHUNK] @ right.T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :most]
        votes = np.zeros((len(nearest), classes), dtype=np.int64)
        np.add.at(votes, (np.arange(len(nearest))[:, None], labels[nearest]), 1)
        answers.append(votes.argmax(axis=1))
    return np.concatenate(answers)


def linear_probe(train: Floats, labels: Indices, test: Floats) -> Indices:
    """Fit multinomial logistic regression to standardised features by L-BFGS, and answer.

    The objective is scikit-learn's: half the squared weights plus the summed log loss; biases are
    not penalised. Classes without training images are never answered.

    Args:
        train: ``(M, D)`` features.
        labels: ``(M,)`` class indices.
        test: ``(N, D)`` features.

    Returns:
        ``(N,)`` class indices.
    """
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread == 0] = 1.0
    scaled, target = (train - mean) / spread, (test - mean) / spread
    present, own = np.unique(labels, return_inverse=True)
    truth = np.eye(len(present))[own]
    shape = (scaled.shape[1] + 1, len(present))

    def objective(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        logs = special.log_softmax(scaled @ weights[:-1] + weights[-1], axis=1)
        wrong = INVERSE_PENALTY * (np.exp(logs) - truth)
        gradient = np.vstack((scaled.T @ wrong + weights[:-1], wrong.sum(axis=0)))
        loss = -INVERSE_PENALTY * (truth * logs).sum() + 0.5 * (weights[:-1] ** 2).sum()
        return float(loss), gradient.ravel()

    found = optimize.minimize(
        objective,
        np.zeros(shape[0] * shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MOST_STEPS, "gtol": _TOLERANCE, "ftol": 1e-12},
    )
    weights = found.x.reshape(shape)
    answers: Indices = present[(target @ weights[:-1] + weights[-1]).argmax(axis=1)]
    return answers


def _unit(features: Floats) -> Floats:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return cast(Floats, features / np.maximum(norms, np.finfo(np.float64).tiny))


def _frozen(run: Run) -> tuple[str, TrainedModel]:
    """Return the backbone as training began, where it began with weights that are here."""
    model, weights = run.model(), run.config["model"]["weights"]
    if weights is not None:
        metadata = model.metadata
        try:
            network = Classifier(metadata.model_name, len(metadata.class_map), weights=weights)
        except ClassifierTrainingError as error:
            logger.warning("baselines: {}; using the trained network's features", error.what)
        else:
            network.eval()
            return "initial_backbone", replace(model, network=network)
    return "trained_network", model
