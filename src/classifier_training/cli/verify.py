"""``classifier verify``: no torch."""

from __future__ import annotations

from pathlib import Path

from loguru import logger

from classifier_training.cli.report import guarded, set_up_logging
from classifier_training.errors import EXIT_OK
from classifier_training.runtime.predictor import Predictor
from classifier_training.runtime.progress import progress
from classifier_training.runtime.verification import verify_golden, verify_recorded


def run_verify(model: Path, *, data: Path | None, debug: bool) -> int:
    """Verify an export and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        predictor = Predictor.load(model)
        logger.info("{}: sidecar, hash and class mapping belong together", predictor.path)
        for golden in verify_golden(predictor):
            logger.info(
                "golden vector {}: logits within {:.1e}", golden.name, golden.logits_difference
            )
        if (model / "run.json").exists():
            with progress("verify") as on_images:
                results = verify_recorded(predictor, model, data, on_images)
            for result in results:
                logger.info(
                    "{}: all {} images get the recorded class, probabilities within {:.1e}",
                    result.split,
                    result.images,
                    result.worst,
                )
        logger.info("verified")
        return EXIT_OK

    return guarded(task, debug=debug)
