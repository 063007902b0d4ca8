"""``classifier evaluate``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from classifier_training.cli.report import guarded, need_extra, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError
from classifier_training.runtime.progress import progress

_SPLITS = ("train", "val", "test")


def run_evaluate(
    run: Path,
    *,
    split: str,
    out: Path | None,
    data_root: Path | None,
    batch_size: int,
    device: str,
    debug: bool,
) -> int:
    """Evaluate a run and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        if split not in _SPLITS:
            raise ConfigError(
                f"--split {split} is unknown",
                expected=f"one of {', '.join(_SPLITS)}",
                mend="--split test",
            )
        if find_spec("torch") is None:
            raise need_extra("torch", "train")
        from classifier_training.artifacts.run_folder import load_run

        load_run(run)  # refuses before torch is imported
        from classifier_training.evaluation.evaluate import evaluate

        with progress(f"evaluate {split}") as on_images:
            evaluate(
                run,
                split=split,
                out=out,
                data_root=data_root,
                device=device,
                batch_size=batch_size,
                on_images=on_images,
            )
        return EXIT_OK

    return guarded(task, debug=debug)
