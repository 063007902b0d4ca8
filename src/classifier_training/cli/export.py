"""``classifier export``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from loguru import logger

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError


def run_export(
    run: Path, *, opset: int, precision: str, data_root: Path | None, debug: bool
) -> int:
    """Export a run and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        if precision != "fp32":
            raise ConfigError(
                f"--precision {precision} is not available",
                expected="fp32",
                mend="--precision fp32",
            )
        if find_spec("torch") is None:
            raise need_extra("torch", "train")
        from classifier_training.artifacts.run_folder import load_run

        folder = load_run(run).folder  # refuses before torch is imported
        from classifier_training.evaluation.export import export
        from classifier_training.report.model_card import write_model_card

        done = export(run, opset=opset, data_root=data_root)
        logger.info("wrote {} and {}", done.onnx, done.sidecar)
        logger.info("onnxruntime follows torch: {}", done.agreement)
        if folder.model_card.exists():
            write_model_card(folder)  # it names the files by their hash
        return EXIT_OK

    return guarded(task, debug=debug)
