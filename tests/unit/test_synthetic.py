"""The synthetic jerseys: same bytes for the same spec, and labels that stay what they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier_training.errors import ConfigError, DataError
from classifier_training.synthetic import writer
from classifier_training.synthetic.render import render_crop
from classifier_training.synthetic.writer import (
    DEFAULT_CLASSES,
    SynthSpec,
    class_counts,
    write_dataset,
)

SPEC = SynthSpec(
    classes=("0", "00", "7", "23"),
    train_per_class=4,
    val_per_class=2,
    test_per_class=1,
    imbalance=1.0,
    image_size=48,
    difficulty=0.5,
    seed=3,
)


def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _rows(folder: Path) -> list[dict[str, object]]:
    text = (folder / "annotations.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("synth") / "jerseys", SPEC)


def _pixels(label: str, seed: list[int], *, size: int = 64, difficulty: float = 0.5) -> np.ndarray:
    picture, _ = render_crop(label, image_size=size, difficulty=difficulty, seed=seed)
    return np.asarray(picture, dtype=np.int16)


def test_same_spec_gives_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    again = write_dataset(tmp_path / "again", SPEC)
    assert _files(again) == _files(dataset)


def test_another_seed_gives_other_images(dataset: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", replace(SPEC, seed=4))
    ours = {blob for name, blob in _files(dataset).items() if name.endswith(".jpg")}
    theirs = {blob for name, blob in _files(other).items() if name.endswith(".jpg")}
    assert len(ours) == len(theirs) == 4 * (4 + 2 + 1)
    assert not ours & theirs


def test_bytes_do_not_depend_on_the_number_of_processes(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_workers", lambda images: 2)
    monkeypatch.setattr(writer, "_CHUNK", 5)
    seen: list[tuple[int, int]] = []
    parallel = write_dataset(tmp_path / "two", SPEC, lambda *progress: seen.append(progress))
    assert _files(parallel) == _files(dataset)
    assert seen == [(done, 28) for done in range(1, 29)]


def test_more_images_leave_the_first_ones_as_they_were(dataset: Path, tmp_path: Path) -> None:
    classes = ("0", "00", "7", "23", "99")
    more = write_dataset(tmp_path / "more", replace(SPEC, classes=classes, train_per_class=6))
    before = {blob for name, blob in _files(dataset).items() if name.endswith(".jpg")}
    assert before < {blob for name, blob in _files(more).items() if name.endswith(".jpg")}


@pytest.mark.parametrize(("split", "each"), [("train", 4), ("valid", 2), ("test", 1)])
def test_labels_stay_the_strings_they_are(dataset: Path, split: str, each: int) -> None:
    rows = _rows(dataset / split)
    labels = Counter(row["suffix"] for row in rows)
    assert labels == {"0": each, "00": each, "7": each, "23": each}
    assert {row["prefix"] for row in rows} == {"Read the number on the jersey."}
    on_disk = {path.name for path in (dataset / split).glob("*.jpg")}
    assert [row["image"] for row in rows] == sorted(on_disk)


def test_a_file_name_names_one_image_and_the_order_does_not_tell_the_class(dataset: Path) -> None:
    names = [row["image"] for split in ("train", "valid", "test") for row in _rows(dataset / split)]
    assert len(set(names)) == len(names)
    labels = [row["suffix"] for row in _rows(dataset / "train")]
    assert labels != sorted(labels, key=SPEC.classes.index)


def test_metadata_tells_what_the_picture_shows(dataset: Path) -> None:
    metadata = [row["metadata"] for row in _rows(dataset / "train")]
    for facts in metadata:
        assert isinstance(facts, dict)
        assert isinstance(facts["outline"], bool)
        assert facts["jersey_color"] != facts["number_color"]
    assert len({str(facts) for facts in metadata}) == len(metadata)


def test_shorter_side_is_the_image_size_and_not_all_images_are_square(dataset: Path) -> None:
    sizes = []
    for path in sorted((dataset / "train").glob("*.jpg")):
        with Image.open(path) as image:
            assert (image.mode, image.format) == ("RGB", "JPEG")
            sizes.append(image.size)
    assert {min(size) for size in sizes} == {48}
    assert len(set(sizes)) > 4


def test_imbalance_is_the_ratio_of_the_most_frequent_class_to_the_rarest(tmp_path: Path) -> None:
    spec = replace(SPEC, train_per_class=16, imbalance=8.0, val_per_class=0, test_per_class=1)
    assert class_counts(spec) == {"0": 16, "00": 8, "7": 4, "23": 2}
    out = write_dataset(tmp_path / "tail", spec)
    assert Counter(row["suffix"] for row in _rows(out / "train")) == class_counts(spec)
    assert Counter(row["suffix"] for row in _rows(out / "test")) == dict.fromkeys(SPEC.classes, 1)
    assert not (out / "valid").exists()


def test_every_class_keeps_an_image_however_long_the_tail() -> None:
    counts = class_counts(replace(SPEC, train_per_class=10, imbalance=1000.0))
    assert list(counts) == list(SPEC.classes)
    assert max(counts.values()) == 10
    assert min(counts.values()) == 1


def test_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(DataError, match="not empty"):
        write_dataset(used, SPEC)
    assert _files(tmp_path) == {"used/mine.txt": b"keep"}


def test_empty_folder_is_filled(tmp_path: Path, dataset: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert write_dataset(empty, SPEC) == empty
    assert _files(empty) == _files(dataset)


def test_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "out", SPEC, stop)
    assert list(tmp_path.iterdir()) == []


def test_wrong_values_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        replace(SPEC, classes=("7", "NO", "7"), imbalance=0.5, difficulty=1.5, train_per_class=0)
    for part in ("'NO'", "twice", "imbalance is 0.5", "difficulty is 1.5", "train_per_class is 0"):
        assert part in caught.value.what


def test_default_classes_begin_with_what_a_small_demo_needs() -> None:
    assert len(DEFAULT_CLASSES) >= 43
    assert len(set(DEFAULT_CLASSES)) == len(DEFAULT_CLASSES)
    assert {"0", "00"} < set(DEFAULT_CLASSES[:12])
    assert {len(label) for label in DEFAULT_CLASSES[:12]} == {1, 2}


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_number_is_visible_in_the_middle_and_nowhere_else(difficulty: float) -> None:
    visible = 0
    for index in range(24):
        bare = _pixels("", [1, index], difficulty=difficulty)
        worn = _pixels("8", [1, index], difficulty=difficulty)
        change = np.abs(worn - bare).max(axis=-1)
        height, width = change.shape
        middle = change[height // 4 : -height // 4, width // 4 : -width // 4]
        # enough of the middle must change by a contrast that a blurred print still has
        visible += (middle > 40).mean() > 0.12
        assert change[:, :3].mean() < 6
        assert change[:, -3:].mean() < 6
    assert visible >= 23


@pytest.mark.parametrize(("one", "other"), [("0", "00"), ("1", "11"), ("6", "8"), ("3", "8")])
def test_different_labels_look_different_on_the_same_jersey(one: str, other: str) -> None:
    for index in range(6):
        change = np.abs(_pixels(one, [2, index]) - _pixels(other, [2, index])).max(axis=-1)
        assert (change > 30).mean() > 0.005


def test_images_of_a_class_differ_from_each_other() -> None:
    small = []
    for index in range(24):
        picture, _ = render_crop("23", image_size=48, difficulty=0.0, seed=[5, index])
        small.append(np.asarray(picture.resize((16, 16)), dtype=np.int16))
    for index, picture_a in enumerate(small):
        for picture_b in small[index + 1 :]:
            assert np.abs(picture_a - picture_b).mean() > 4


def test_difficulty_blurs() -> None:
    def sharpness(difficulty: float) -> float:
        crops = [_pixels("23", [6, index], difficulty=difficulty) for index in range(24)]
        return float(np.mean([np.abs(np.diff(crop.mean(axis=-1))).max() for crop in crops]))

    assert sharpness(1.0) < 0.9 * sharpness(0.0)


def test_seeds_of_different_length_are_different_seeds() -> None:
    assert _pixels("7", [1]).tobytes() != _pixels("7", [1, 0]).tobytes()


def test_rendering_needs_no_torch() -> None:
    code = (
        "import sys; from classifier_training.synthetic import render_crop;"
        "render_crop('7', image_size=32, difficulty=0.5, seed=[1]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
