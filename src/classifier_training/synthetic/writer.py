"""Write a whole synthetic data set: splits of JPEG files, each with an ``annotations.jsonl``."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classifier_training.errors import ConfigError, DataError
from classifier_training.synthetic.render import render_crop

# "0" and "00" come first so that even a small demo has both: they are two classes, and a tool
# that reads labels as numbers merges them.
DEFAULT_CLASSES: tuple[str, ...] = tuple(
    "0 00 1 3 4 5 7 8 10 11 23 33 2 6 9 12 13 14 15 16 17 18 19 20 21 22 24 25 26 27 28 30 31 32 "
    "34 35 40 41 42 43 44 45 50 55 77 99".split()
)
PROMPT = "Read the number on the jersey."
ANNOTATIONS = "annotations.jsonl"

_SPLITS = ("train", "valid", "test")
# Below this many crops a second process takes longer to start than it saves.
_WORTH_A_POOL = 600
_WORKERS = 2
_CHUNK = 64


@dataclass(frozen=True)
class SynthSpec:
    """What to render; the same spec gives the same bytes (with the same Pillow and numpy).

    Args:
        classes: Distinct labels of one to three digits, in the order of falling frequency.
        train_per_class: Training images of the most frequent class, >= 1.
        val_per_class: Validation images of each class, >= 0.
        test_per_class: Test images of each class, >= 0.
        imbalance: How many times more frequent the first class is than the last in train, >= 1.
        image_size: Pixels of the shorter side, 32..1024.
        difficulty: 0 (clean) to 1 (blurred, folded, occluded).
        seed: Whole number >= 0.

    Raises:
        ConfigError: A value is out of range; the message names every such value.
    """

    classes: tuple[str, ...]
    train_per_class: int
    val_per_class: int
    test_per_class: int
    imbalance: float
    image_size: int
    difficulty: float
    seed: int

    def __post_init__(self) -> None:
        wrong = list(_faults(self))
        if wrong:
            raise ConfigError(
                "synthetic data set: " + "; ".join(wrong),
                expected="values in the ranges that `classifier synth --help` lists",
                fix="change the options named above",
            )


def _faults(spec: SynthSpec) -> Iterator[str]:
    if not spec.classes:
        yield "no classes"
    for label in spec.classes:
        if not (1 <= len(label) <= 3 and label.isascii() and label.isdigit()):
            yield f"class {label!r} is not one to three digits"
    if len(set(spec.classes)) < len(spec.classes):
        yield "a class is listed twice"
    if spec.train_per_class < 1:
        yield f"train_per_class is {spec.train_per_class}, not 1 or more"
    for name in ("val_per_class", "test_per_class", "seed"):
        if getattr(spec, name) < 0:
            yield f"{name} is {getattr(spec, name)}, not 0 or more"
    if not 1 <= spec.imbalance < float("inf"):
        yield f"imbalance is {spec.imbalance}, not 1 or more"
    if not 32 <= spec.image_size <= 1024:
        yield f"image_size is {spec.image_size}, not in 32..1024"
    if not 0 <= spec.difficulty <= 1:
        yield f"difficulty is {spec.difficulty}, not in 0..1"


def class_counts(spec: SynthSpec) -> dict[str, int]:
    """Return the number of training images of each class, in the order of ``spec.classes``.

    Counts fall geometrically from ``train_per_class`` by ``imbalance`` in all. No class has fewer
    than one image, so the ratio is reached only if ``train_per_class >= imbalance``.
    """
    steps = max(1, len(spec.classes) - 1)
    return {
        label: max(1, round(spec.train_per_class * spec.imbalance ** (-index / steps)))
        for index, label in enumerate(spec.classes)
    }


@dataclass(frozen=True)
class _Task:
    """One image: its place (relative to the data set), label, and the numbers that seed it."""

    split: str
    name: str
    label: str
    seed: tuple[int, ...]


def write_dataset(
    out: Path, spec: SynthSpec, on_image: Callable[[int, int], None] | None = None
) -> Path:
    """Render the data set and move it to ``out`` when it is complete.

    Args:
        out: Folder to create; may exist if empty. Gets ``train``, ``valid`` and ``test``, each
            with JPEG files and ``annotations.jsonl`` (``image``, ``prefix``, ``suffix``: the label
            as a string, ``metadata``). A split of no images is left out.
        spec: What to render.
        on_image: Called with (images done, images in all) as images are finished.

    Returns:
        ``out``.

    Raises:
        DataError: ``out`` is a file, or a folder that is not empty.
    """
    target = out.resolve()
    _refuse_used(target)
    tasks = _plan(spec)
    with _partial_folder(target) as folder:
        for split in {task.split for task in tasks}:
            (folder / split).mkdir()
        facts = _render_all(folder, tasks, spec, _workers(len(tasks)), on_image)
        for split in _SPLITS:
            _write_annotations(folder, split, tasks, facts)
        _refuse_used(target)
        folder.replace(target)
    return out


def _refuse_used(target: Path) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        raise DataError(
            f"{target} exists and is {'not empty' if target.is_dir() else 'not a folder'}",
            expected="a new or an empty folder: nothing is ever overwritten",
            fix="name another folder, or remove this one first",
        )


@contextmanager
def _partial_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside ``target``, on the same file system; removed unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plan(spec: SynthSpec) -> list[_Task]:
    """List every image of the data set, shuffled within its split.

    An image is seeded by its split, label and number among its like, not by its place in the
    list: more classes or more images leave those that were there as they were.
    """
    counts = {
        "train": class_counts(spec),
        "valid": dict.fromkeys(spec.classes, spec.val_per_class),
        "test": dict.fromkeys(spec.classes, spec.test_per_class),
    }
    tasks: list[_Task] = []
    for number, split in enumerate(_SPLITS):
        wanted = [
            (label, (spec.seed, number, zlib.crc32(label.encode()), index))
            for label, count in counts[split].items()
            for index in range(count)
        ]
        # neither the order of the rows nor the file names may tell the class
        order = np.random.default_rng([spec.seed, number]).permutation(len(wanted))
        for position in order:
            label, seed = wanted[position]
            # numbered through all splits: a file name alone names one image
            tasks.append(_Task(split, f"{len(tasks):06d}.jpg", label, seed))
    return tasks


def _workers(images: int) -> int:
    return 1 if images < _WORTH_A_POOL else min(_WORKERS, os.cpu_count() or 1)


def _render_all(
    folder: Path,
    tasks: list[_Task],
    spec: SynthSpec,
    workers: int,
    on_image: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    """Write every image; return their metadata in the order of ``tasks``.

    What is written does not depend on ``workers``: each image has its own seed.
    """
    facts: list[dict[str, Any]] = []

    def collect(done: list[dict[str, Any]]) -> None:
        for fact in done:
            facts.append(fact)
            if on_image is not None:
                on_image(len(facts), len(tasks))

    size = _CHUNK if workers > 1 else 1
    chunks = [(folder, tasks[i : i + size], spec) for i in range(0, len(tasks), size)]
    if workers == 1:
        for chunk in chunks:
            collect(_render_chunk(chunk))
        return facts
    # spawn: a fork of a process that has started threads (torch, a progress bar) may hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        for done in pool.map(_render_chunk, chunks):
            collect(done)
    finally:
        # an error or Ctrl-C must not wait for thousands of images that nobody wants
        pool.shutdown(cancel_futures=True)
    return facts


def _render_chunk(chunk: tuple[Path, list[_Task], SynthSpec]) -> list[dict[str, Any]]:
    """Write the images of one chunk; runs in any process."""
    folder, tasks, spec = chunk
    facts = []
    for task in tasks:
        picture, metadata = render_crop(
            task.label, image_size=spec.image_size, difficulty=spec.difficulty, seed=task.seed
        )
        # of a stream of its own, so that render_crop alone gives the same picture
        quality = int(np.random.default_rng([*task.seed, 1]).integers(72, 96))
        picture.save(folder / task.split / task.name, "JPEG", quality=quality)
        facts.append(metadata)
    return facts


def _write_annotations(
    folder: Path, split: str, tasks: list[_Task], facts: list[dict[str, Any]]
) -> None:
    rows = [
        {"image": task.name, "prefix": PROMPT, "suffix": task.label, "metadata": fact}
        for task, fact in zip(tasks, facts, strict=True)
        if task.split == split
    ]
    if rows:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / split / ANNOTATIONS).write_text(text, encoding="utf-8", newline="\n")
