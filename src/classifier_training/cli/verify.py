"""``classifier verify``: no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from loguru import logger

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError
from classifier_training.inference.predictor import Predictor
from classifier_training.inference.sidecar import VARIANTS, variant_files
from classifier_training.inference.verification import (
    recorded_images,
    verify_golden,
    verify_recorded,
)
from classifier_training.system.progress import progress

_BACKENDS = ("pil", "cv2")


def run_verify(model: Path, *, data: Path | None, backend: str, debug: bool) -> int:
    """Verify an export and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        is_run = (model / "run.json").exists()
        _check(model, data, backend, is_run=is_run)
        predictor = Predictor.load(model)
        logger.info("{}: sidecar, hash and class mapping belong together", predictor.path)
        for golden in verify_golden(predictor):
            logger.info(
                "golden vector {}: logits within {:.1e}", golden.name, golden.logits_difference
            )
        if is_run:
            _verify_variants(model)
        if backend == "cv2":
            _report_opencv(predictor, model, data, is_run=is_run)
        elif is_run:
            _verify_recorded(predictor, model, data)
        logger.info("verified")
        return EXIT_OK

    return guarded(task, debug=debug)


def _verify_variants(run: Path) -> None:
    """Check the other forms of the model that lie beside it."""
    for variant in VARIANTS:
        onnx, _ = variant_files(run, variant)
        if onnx.exists():
            results = verify_golden(Predictor.load(onnx))
            worst = max(result.logits_difference for result in results)
            logger.info("{}: belongs to its sidecar; golden logits within {:.1e}", onnx, worst)


def _check(model: Path, data: Path | None, backend: str, *, is_run: bool) -> None:
    if backend not in _BACKENDS:
        raise ConfigError(
            f"--backend {backend} is unknown",
            expected=f"one of {', '.join(_BACKENDS)}",
            fix="--backend cv2 measures how often OpenCV preprocessing changes the answer",
        )
    if backend == "cv2" and find_spec("cv2") is None:
        raise need_extra("cv2", "opencv")
    if backend == "pil" and data is not None and not is_run:
        raise ConfigError(
            f"--data {data} says where a run's images lie, but {model} is no run folder",
            expected="a run folder, or an ONNX file without --data, or --backend cv2",
            fix=f"classifier verify {model}",
        )


def _verify_recorded(predictor: Predictor, run: Path, data: Path | None) -> None:
    with progress("verify") as on_images:
        results = verify_recorded(predictor, run, data, on_images)
    for result in results:
        logger.info(
            "{}: all {} images get the recorded class, probabilities within {:.1e}",
            result.split,
            result.images,
            result.worst,
        )
    if not results:
        logger.warning("the run has no recorded predictions to compare with")


def _report_opencv(predictor: Predictor, model: Path, data: Path | None, *, is_run: bool) -> None:
    """Say how often OpenCV changes the answer; that is a report, not a failure."""
    from classifier_training.cli.predict import expand
    from classifier_training.inference.backend_comparison import compare_opencv

    if is_run:
        paths = recorded_images(predictor, model, data)
    else:
        paths = [] if data is None else expand([str(data)])
    with progress("verify by OpenCV") as on_images:
        results = compare_opencv(predictor, paths, on_images)
    for result in results:
        logger.info(
            "OpenCV {}: golden vectors: logits within {:.1e}", result.interpolation, result.golden
        )
        if result.images:
            logger.info(
                "OpenCV {}: {} of {} images ({:.2%}) get another class than by Pillow; "
                "probabilities differ by up to {:.3f}, on average {:.4f}",
                result.interpolation,
                result.flips,
                result.images,
                result.flips / result.images,
                result.worst,
                result.mean,
            )
    if results[0].unreadable:
        logger.warning("OpenCV cannot decode {} of the images", results[0].unreadable)
    if not paths:
        logger.warning("no images compared: say where some lie with --data DIR")
