"""``classifier predict`` in this process."""

from __future__ import annotations

from pathlib import Path

from classifier_training.cli.predict import PredictOptions, run_predict
from classifier_training.inference.predictor import Extras


def predict(
    model: Path,
    *images: str | Path,
    out: Path | None = None,
    top_k: int = 5,
    batch_size: int = 2,
    extras: Extras | None = None,
    on_bad_image: str = "error",
    threads: int | None = 1,
    provider: str = "cpu",
) -> int:
    """Return its exit code."""
    options = PredictOptions(
        top_k, out, batch_size, extras or Extras(), on_bad_image, threads, provider
    )
    return run_predict(model, [str(image) for image in images], options, debug=False)
