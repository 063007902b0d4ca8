"""``classifier verify``: no torch."""

from __future__ import annotations

from pathlib import Path

from loguru import logger

from classifier_training.cli.report import guarded, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError
from classifier_training.runtime.predictor import Predictor
from classifier_training.runtime.progress import progress
from classifier_training.runtime.verification import verify_golden, verify_recorded


def run_verify(model: Path, *, data: Path | None, debug: bool) -> int:
    """Verify an export and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        is_run = (model / "run.json").exists()
        if data is not None and not is_run:
            raise ConfigError(
                f"--data {data} says where a run's images lie, but {model} is no run folder",
                expected="a run folder, or an ONNX file without --data",
                mend=f"classifier verify {model}",
            )
        predictor = Predictor.load(model)
        logger.info("{}: sidecar, hash and class mapping belong together", predictor.path)
        for golden in verify_golden(predictor):
            logger.info(
                "golden vector {}: logits within {:.1e}", golden.name, golden.logits_difference
            )
        if is_run:
            with progress("verify") as on_images:
                results = verify_recorded(predictor, model, data, on_images)
            for result in results:
                logger.info(
                    "{}: all {} images get the recorded class, probabilities within {:.1e}",
                    result.split,
                    result.images,
                    result.worst,
                )
            if not results:
                logger.warning("the run has no recorded predictions to compare with")
        logger.info("verified")
        return EXIT_OK

    return guarded(task, debug=debug)
