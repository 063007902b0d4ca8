"""``classifier predict``: no torch."""

from __future__ import annotations

import glob
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from classifier_training.cli.report import guarded, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError, DataError
from classifier_training.runtime.class_map import ClassMap
from classifier_training.runtime.files import replacing
from classifier_training.runtime.images import IMAGE_EXTENSIONS
from classifier_training.runtime.prediction_files import write_predictions
from classifier_training.runtime.predictor import Prediction, Predictor
from classifier_training.runtime.progress import progress
from classifier_training.runtime.walking import walk_files

_ENDINGS = (".csv", ".jsonl")


def run_predict(
    model: Path,
    images: list[str],
    *,
    top_k: int,
    out: Path | None,
    batch_size: int,
    debug: bool,
) -> int:
    """Classify images and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        if out is not None and out.suffix not in _ENDINGS:
            raise ConfigError(
                f"--out {out} has an unknown ending",
                expected=f"one of {', '.join(_ENDINGS)}",
                mend=f"--out {out.with_suffix('.csv')}",
            )
        predictor = Predictor.load(model)
        paths = expand(images)
        predictions = predictor.predict(paths, batch_size=batch_size)
        if out is None:
            _show(predictions, predictor.class_map, top_k)
            return EXIT_OK
        _write(out, predictor.class_map, predictions, len(paths))
        return EXIT_OK

    return guarded(task, debug=debug)


def expand(arguments: Iterable[str]) -> list[Path]:
    """Turn files, folders (read recursively) and globs into image paths.

    Raises:
        DataError: An argument matches no image.
    """
    paths: list[Path] = []
    for argument in arguments:
        found = list(_matches(argument))
        if not found:
            raise DataError(
                f"no image at {argument}",
                expected="an image file, a folder with images, or a glob that matches some",
                mend="correct the path",
            )
        paths.extend(found)
    return paths


def _matches(argument: str) -> Iterator[Path]:
    path = Path(argument)
    if path.is_dir():
        yield from _images_in(path)
    elif path.exists():
        yield path
    else:
        for match in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207 - may be absolute
            if Path(match).is_file():
                yield Path(match)


def _images_in(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(
            f"cannot list the folder {error.filename}: {error.strerror or error}",
            expected="folders that this user may read",
            mend="give read and search permission on it",
        ) from error

    for path in walk_files(folder, on_skip=lambda _: None, on_error=refuse):
        if path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith("."):
            yield path


def _write(out: Path, class_map: ClassMap, predictions: Iterable[Prediction], total: int) -> None:
    as_jsonl = out.suffix == ".jsonl"
    try:
        with progress("predict") as report, replacing(out) as temporary:
            rows = write_predictions(temporary, class_map, predictions, as_jsonl=as_jsonl)
            for done, _ in enumerate(rows, start=1):
                report(done, total)
    except OSError as error:
        raise ConfigError(
            f"cannot write --out {out}: {error.strerror or error}",
            expected="a file in a folder that can be written, on a disk with room",
            mend="choose another --out",
        ) from error


def _show(predictions: Iterable[Prediction], class_map: ClassMap, top_k: int) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    for item in predictions:
        order = np.argsort(-item.probabilities, kind="stable")[:top_k]
        shown = "  ".join(f"{class_map.names[i]} {item.probabilities[i]:.3f}" for i in order)
        print(f"{item.path}: {shown}", flush=True)
