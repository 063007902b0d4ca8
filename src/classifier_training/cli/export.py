"""``classifier export``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from loguru import logger

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError

_PRECISIONS = ("fp32", "int8")
_INPUTS = ("float32", "uint8")


@dataclass(frozen=True)
class ExportOptions:
    """What ``classifier export`` was asked, besides the run.

    Attributes:
        opset: ONNX operator set.
        precision: ``fp32``, or ``int8``: a quantised copy as well.
        input_type: ``float32``, or ``uint8``: a copy that takes pixels as well.
        max_loss: What int8 may lose of top-1 accuracy and macro F1 on val.
        data_root: Where the data lies now, if it moved.
    """

    opset: int
    precision: str
    input_type: str
    max_loss: float
    data_root: Path | None


def run_export(run: Path, options: ExportOptions, *, debug: bool) -> int:
    """Export a run and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        _check(options)
        if find_spec("torch") is None:
            raise need_extra("torch", "train")
        from classifier_training.run.reader import Run

        stored = Run(run)  # refuses before torch is imported
        from classifier_training.exporters.onnx import export
        from classifier_training.report.model_card import write_model_card

        done = export(run, opset=options.opset, data_root=options.data_root)
        logger.info("wrote {} and {}", done.onnx, done.sidecar)
        logger.info("onnxruntime follows torch: {}", done.agreement)
        if options.input_type == "uint8":
            _export_pixels(run, options)
        if options.precision == "int8":
            _export_int8(run, options)
        if stored.record["status"] == "finished" and stored.folder.model_card.exists():
            write_model_card(stored.folder)  # it names the files by their hash
        return EXIT_OK

    return guarded(task, debug=debug)


def _check(options: ExportOptions) -> None:
    for name, value, known in (
        ("--precision", options.precision, _PRECISIONS),
        ("--input", options.input_type, _INPUTS),
    ):
        if value not in known:
            raise ConfigError(
                f"{name} {value} is not available",
                expected=f"one of {', '.join(known)}",
                fix=f"{name} {known[0]}",
            )


def _export_pixels(run: Path, options: ExportOptions) -> None:
    from classifier_training.exporters.uint8 import export_pixels

    done = export_pixels(run, data_root=options.data_root)
    logger.info("wrote {} and {}", done.onnx, done.sidecar)
    logger.info("uint8 input follows float32 input: {}", done.agreement)


def _export_int8(run: Path, options: ExportOptions) -> None:
    from classifier_training.exporters.int8 import export_int8

    done = export_int8(run, max_loss=options.max_loss, data_root=options.data_root)
    logger.info("wrote {} and {}", done.onnx, done.sidecar)
    for speed in done.speed:
        logger.info("int8 against fp32 here: {}", speed)
