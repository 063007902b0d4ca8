"""``classifier synth``."""

from __future__ import annotations

from pathlib import Path

from loguru import logger

from classifier_training.cli.console import guarded, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError
from classifier_training.system.progress import progress

_HELD_OUT_SHARE = 0.15


def run_synth(
    out: Path,
    *,
    classes: int,
    per_class: int,
    imbalance: float,
    image_size: int,
    difficulty: float,
    seed: int,
    debug: bool,
) -> int:
    """Render a data set and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        from classifier_training.synthetic.writer import DEFAULT_CLASSES, SynthSpec, write_dataset

        if classes > len(DEFAULT_CLASSES):
            raise ConfigError(
                f"--classes {classes} is more than there are numbers",
                expected=f"at most {len(DEFAULT_CLASSES)}",
                fix=f"--classes {len(DEFAULT_CLASSES)}",
            )
        held_out = max(2, round(per_class * _HELD_OUT_SHARE))
        spec = SynthSpec(
            classes=DEFAULT_CLASSES[:classes],
            train_per_class=per_class,
            val_per_class=held_out,
            test_per_class=held_out,
            imbalance=imbalance,
            image_size=image_size,
            difficulty=difficulty,
            seed=seed,
        )
        with progress("rendering") as on_image:
            write_dataset(out, spec, on_image)
        logger.info("wrote {} classes to {}", classes, out)
        logger.info("train: classifier train --config-name train_demo data.data_root={}", out)
        return EXIT_OK

    return guarded(task, debug=debug)
