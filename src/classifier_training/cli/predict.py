"""``classifier predict``: no torch."""

from __future__ import annotations

import glob
import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from loguru import logger

from classifier_training.cli.console import guarded, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError, DataError
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.images import IMAGE_EXTENSIONS
from classifier_training.inference.prediction_files import write_predictions
from classifier_training.inference.predictor import Extras, Prediction, Predictor
from classifier_training.system.files import replacing
from classifier_training.system.progress import progress
from classifier_training.system.scan import walk_files

_ENDINGS = (".csv", ".jsonl")
_ON_BAD_IMAGE = ("error", "skip")
_MOST_NAMED = 20  # images unlike the training images; the file lists all


@dataclass(frozen=True)
class PredictOptions:
    """What ``classifier predict`` was asked, besides model and images.

    Attributes:
        top_k: Classes shown an image.
        out: File to write instead of showing.
        batch_size: Images at a time.
        extras: What is wanted besides the probabilities.
        on_bad_image: ``error`` or ``skip``.
        threads: Of the session; None: the cores this process may use.
        provider: Of onnxruntime.
    """

    top_k: int
    out: Path | None
    batch_size: int
    extras: Extras
    on_bad_image: str
    threads: int | None
    provider: str


def run_predict(model: Path, images: list[str], options: PredictOptions, *, debug: bool) -> int:
    """Classify images and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        _check(options)
        predictor = Predictor.load(model, threads=options.threads, providers=[options.provider])
        paths = expand(images)
        notes = _Notes(skips=options.on_bad_image == "skip")
        predictions = predictor.predict(
            paths,
            batch_size=options.batch_size,
            extras=options.extras,
            on_bad_image=notes.skip if notes.skips else None,
        )
        _answer(predictor, notes.watch(predictions), len(paths), options)
        notes.summarise()
        return EXIT_OK

    return guarded(task, debug=debug)


def _check(options: PredictOptions) -> None:
    if options.out is not None and options.out.suffix not in _ENDINGS:
        raise ConfigError(
            f"--out {options.out} has an unknown ending",
            expected=f"one of {', '.join(_ENDINGS)}",
            fix=f"--out {options.out.with_suffix('.csv')}",
        )
    if options.on_bad_image not in _ON_BAD_IMAGE:
        raise ConfigError(
            f"--on-bad-image {options.on_bad_image} is unknown",
            expected=f"one of {', '.join(_ON_BAD_IMAGE)}",
            fix="--on-bad-image skip",
        )


def _answer(
    predictor: Predictor, predictions: Iterable[Prediction], total: int, options: PredictOptions
) -> None:
    if options.out is None:
        _show(predictions, predictor.class_map, options.top_k)
    else:
        _write(options.out, predictor.class_map, predictions, total, options.extras)


class _Notes:
    """What is said about files beside their predictions."""

    def __init__(self, *, skips: bool) -> None:
        self.skips = skips
        self._skipped = 0
        self._unsure = 0
        self._odd = 0
        self._foreign = 0
        self._answered = 0

    def skip(self, error: DataError) -> None:
        """Name a file that is left out."""
        self._skipped += 1
        logger.warning("left out: {}", error.what)

    def watch(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Count while passing predictions through.

        Raises:
            DataError: Every file was left out.
        """
        for item in predictions:
            self._answered += 1
            self._unsure += item.unsure is True
            self._foreign += item.out_of_distribution is True
            if item.oddities:
                self._odd += 1
                if self._odd <= _MOST_NAMED:
                    text = "unlike the training images: {}: {}"
                    logger.warning(text, item.path, ", ".join(item.oddities))
            yield item
        if not self._answered:
            raise DataError(
                f"none of the {self._skipped} images can be read",
                expected="at least one image that can be decoded",
                fix="restore the files named above",
            )

    def summarise(self) -> None:
        """Say how many there were of each kind."""
        counts = {
            "could not be read and are left out": self._skipped,
            "are unlike the training images in size, brightness or contrast": self._odd,
            "answers are unsure": self._unsure,
            "are out of distribution": self._foreign,
        }
        for text, count in counts.items():
            if count:
                logger.warning("{:,} of {:,} {}", count, self._answered + self._skipped, text)


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
                fix="correct the path",
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
            fix="give read and search permission on it",
        ) from error

    for path in walk_files(folder, on_skip=lambda _: None, on_error=refuse):
        if path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith("."):
            yield path


def _write(
    out: Path, class_map: ClassMap, predictions: Iterable[Prediction], total: int, extras: Extras
) -> None:
    as_jsonl = out.suffix == ".jsonl"
    try:
        with progress("predict") as report, replacing(out) as temporary:
            rows = write_predictions(
                temporary, class_map, predictions, as_jsonl=as_jsonl, extras=extras
            )
            for done, _ in enumerate(rows, start=1):
                report(done, total)
    except OSError as error:
        raise ConfigError(
            f"cannot write --out {out}: {error.strerror or error}",
            expected="a file in a folder that can be written, on a disk with room",
            fix="choose another --out",
        ) from error


def _show(predictions: Iterable[Prediction], class_map: ClassMap, top_k: int) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    for item in predictions:
        order = np.argsort(-item.probabilities, kind="stable")[:top_k]
        shown = "  ".join(f"{class_map.names[i]} {item.probabilities[i]:.3f}" for i in order)
        print(f"{item.path}: {shown}{_remarks(item)}", flush=True)


def _remarks(item: Prediction) -> str:
    remarks = []
    if item.unsure:
        remarks.append("unsure")
    if item.candidates is not None:
        remarks.append(f"one of {{{', '.join(item.candidates)}}}")
    if item.energy is not None:
        remarks.append(f"energy {item.energy:.3f}")
    if item.out_of_distribution:
        remarks.append("out of distribution")
    if item.oddities:
        remarks.append("unlike the training images")
    return f"  [{'; '.join(remarks)}]" if remarks else ""
