"""The report at the end of a run."""

from __future__ import annotations

from loguru import logger

from classifier_training.artifacts.run_folder import RunFolder
from classifier_training.report.render import write_report
from classifier_training.runtime.progress import progress


def report_finished(folder: RunFolder) -> None:
    """Write ``report.html`` of a finished run; one that fails is logged, never raised."""
    try:
        with progress("report") as on_images:
            logger.info("report: {}", write_report(folder.path, on_images=on_images))
    except Exception as error:  # noqa: BLE001 - whatever it is, the run and its artefacts are whole
        logger.opt(exception=error).error(
            "the report could not be written; the run is finished all the same. Later: "
            "classifier report {}",
            folder.path,
        )
