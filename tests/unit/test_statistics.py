"""What is said of the data, against scipy, numpy on the pixels, and counting by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from classifier_training.data.image_stats import measure_images
from classifier_training.data.index import DataIndex
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import Record
from classifier_training.data.statistics import MOST_VALUES, statistics
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.plots.statistics import draw_statistics

SPEC = PreprocessSpec(32, "squash", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def write_index(
    root: Path,
    images: Sequence[tuple[str, str, np.ndarray[Any, Any]]],
    metadata: Sequence[str] = (),
    classes: tuple[str, ...] = ("0", "00", "NO"),
) -> DataIndex:
    """Save (split, label, pixels) as PNG and make their index; metadata are JSON texts."""
    records = []
    for number, (split, label, pixels) in enumerate(images):
        path = f"{number:03d}.png"
        Image.fromarray(pixels).save(root / path)
        text = metadata[number] if metadata else ""
        records.append(Record(path, label, split, "rows.jsonl", number + 1, text))
    manifest = Manifest.build(records, ClassMap(classes), root)
    return DataIndex(manifest, {"empty label": 2}, ("a note",))


def flat(value: int | tuple[int, int, int], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    width, height = size
    return np.full((height, width, 3), value, dtype=np.uint8)


def measured(index: DataIndex) -> dict[str, Any]:
    return statistics(index, SPEC, measure_images(index.manifest, workers=1))


@pytest.fixture
def index(tmp_path: Path) -> DataIndex:
    """Train: 6, 3 and 1 images of growing brightness; val: 2 of the first class."""
    labels = ["0"] * 6 + ["00"] * 3 + ["NO"]
    train = [("train", label, flat(20 * n, (20 + 10 * n, 40))) for n, label in enumerate(labels)]
    return write_index(tmp_path, [*train, *[("val", "0", flat(255, (64, 32)))] * 2])


def test_classes_are_counted_and_their_balance_is_scipys(index: DataIndex) -> None:
    found = statistics(index, SPEC)

    train, val = found["splits"]["train"], found["splits"]["val"]
    assert train["per_class"] == {"0": 6, "00": 3, "NO": 1}
    assert train["imbalance_ratio"] == 6
    assert train["entropy_ratio"] == pytest.approx(scipy.stats.entropy([6, 3, 1], base=3))
    assert (val["images"], val["classes_present"]) == (2, 1)
    assert val["per_class"] == {"0": 2, "00": 0, "NO": 0}
    assert list(found["splits"]) == ["train", "val"]
    assert (found["loaded"], found["skipped"], found["notes"]) == (
        12,
        {"empty label": 2},
        ["a note"],
    )


def test_without_facts_what_needs_pixels_is_left_out(index: DataIndex) -> None:
    found = statistics(index, SPEC, None)

    assert "normalisation" not in found
    assert set(found["splits"]["train"]) == {
        "images", "classes_present", "imbalance_ratio", "entropy_ratio", "per_class",
    }  # fmt: skip


def test_sizes_are_those_of_the_files(index: DataIndex) -> None:
    train = measured(index)["splits"]["train"]

    widths = np.arange(20, 120, 10)
    assert train["decoded"] == 10
    assert train["formats"] == {"PNG": 10}
    for name, share in {"min": 0, "q05": 5, "q25": 25, "median": 50, "q95": 95, "max": 100}.items():
        assert train["width"][name] == pytest.approx(np.percentile(widths, share))
        assert train["aspect"][name] == pytest.approx(np.percentile(widths / 40, share))
        assert train["height"][name] == 40
    assert train["width"]["mean"] == 65
    bytes_ = [(index.manifest.root / f"{n:03d}.png").stat().st_size for n in range(10)]
    assert (train["file_bytes"]["min"], train["file_bytes"]["max"]) == (min(bytes_), max(bytes_))


def test_histograms_hold_every_image_and_share_their_bins(index: DataIndex) -> None:
    splits = measured(index)["splits"]

    for key in ("width", "height", "aspect", "brightness", "file_bytes"):
        assert (
            splits["train"][key]["histogram"]["edges"] == splits["val"][key]["histogram"]["edges"]
        )
        assert sum(splits["train"][key]["histogram"]["counts"]) == 10
        assert sum(splits["val"][key]["histogram"]["counts"]) == 2
    edges = splits["train"]["brightness"]["histogram"]["edges"]
    assert (edges[0], edges[-1]) == (0, 1)


def test_channel_statistics_are_those_of_all_pixels(tmp_path: Path) -> None:
    """Of images of one size: mean and deviation over every pixel of the split, by numpy."""
    rng = np.random.default_rng(0)
    base = rng.uniform(30, 200, (8, 1, 1, 3))
    pixels = np.clip(base + rng.normal(0, 15, (8, 48, 48, 3)), 0, 255).astype(np.uint8)
    index = write_index(tmp_path, [("train", "0", picture) for picture in pixels])

    train = measured(index)["splits"]["train"]

    values = pixels.reshape(-1, 3) / 255
    assert train["channels"]["mean"] == pytest.approx(values.mean(axis=0).tolist(), abs=0.003)
    assert train["channels"]["std"] == pytest.approx(values.std(axis=0).tolist(), abs=0.003)
    luma = np.asarray([Image.fromarray(p).convert("L") for p in pixels]).reshape(8, -1) / 255
    assert train["brightness"]["mean"] == pytest.approx(luma.mean(), abs=0.005)


def test_far_normalisation_gets_advice_and_fitting_one_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 30, (4, 32, 32, 3), dtype=np.uint8)
    far = write_index(tmp_path, [("train", "0", picture) for picture in dark])
    found = measured(far)["normalisation"]
    mean, std = (found_by(dark).round(3) for found_by in (_means, _stds))
    wanted = ",".join(f"{value:.3f}" for value in mean)
    assert "transforms.mean=[" in found["advice"]
    stated = [
        float(v) for v in found["advice"].rpartition("mean=[")[2].partition("]")[0].split(",")
    ]
    assert stated == pytest.approx(mean.tolist(), abs=0.003), wanted
    assert found["normalised_mean"] == pytest.approx(
        ((mean - SPEC.mean) / SPEC.std).tolist(), abs=0.02
    )
    assert found["normalised_std"] == pytest.approx((std / SPEC.std).tolist(), abs=0.02)

    usual = rng.normal(255 * np.array(SPEC.mean), 255 * np.array(SPEC.std), (6, 32, 32, 3))
    folder = tmp_path / "usual"
    folder.mkdir()
    pictures = np.clip(usual, 0, 255).astype(np.uint8)
    fitting = write_index(folder, [("train", "0", picture) for picture in pictures])
    assert measured(fitting)["normalisation"]["advice"] is None


def _means(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray((pixels.reshape(-1, 3) / 255).mean(axis=0))


def _stds(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray((pixels.reshape(-1, 3) / 255).std(axis=0))


@pytest.mark.parametrize("value", [(255, 255, 255), (124, 116, 104)])
def test_spread_too_small_is_far_even_with_the_right_mean(
    value: tuple[int, int, int], tmp_path: Path
) -> None:
    index = write_index(tmp_path, [("train", "0", flat(value, (32, 32)))] * 3)

    assert measured(index)["normalisation"]["advice"] is not None


def test_a_shifted_mean_alone_is_far(tmp_path: Path) -> None:
    """With the configured spread, and a mean half as high again."""
    rng = np.random.default_rng(0)
    wanted = rng.normal(160, 45, (6, 32, 32, 3))
    pictures = np.clip(wanted, 0, 255).astype(np.uint8)
    found = measured(write_index(tmp_path, [("train", "0", picture) for picture in pictures]))

    normalisation = found["normalisation"]
    assert all(2 / 3 < scale < 3 / 2 for scale in normalisation["normalised_std"])
    assert normalisation["advice"] is not None


def test_undecodable_images_are_counted_out(tmp_path: Path) -> None:
    index = write_index(tmp_path, [("train", "0", flat(90, (30, 20)))] * 3)
    (tmp_path / "001.png").write_bytes(b"no image")

    train = measured(index)["splits"]["train"]

    assert (train["images"], train["decoded"]) == (3, 2)
    assert (train["width"]["min"], train["height"]["max"]) == (30, 20)

    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"no image")
    nothing = measured(index)
    assert nothing["splits"]["train"]["decoded"] == 0
    assert "normalisation" not in nothing


def test_metadata_are_counted_by_field_and_split(tmp_path: Path) -> None:
    texts = [
        {"jersey_color": "white", "home": True},
        {"jersey_color": "white", "home": False},
        {"jersey_color": "royal"},
        {"jersey_color": None, "boxes": [1, 2]},
        {"jersey_color": "7"},
        {"jersey_color": 7},
    ]
    splits = ["train"] * 4 + ["val"] * 2
    pictures = [(split, "0", flat(9, (8, 8))) for split in splits]
    found = statistics(write_index(tmp_path, pictures, [json.dumps(t) for t in texts]), SPEC)

    train = found["splits"]["train"]["metadata"]
    assert train["jersey_color"] == {
        "rows": 4, "distinct": 3, "values": {"white": 2, "null": 1, "royal": 1},
    }  # fmt: skip
    assert train["home"]["values"] == {"false": 1, "true": 1}
    assert train["boxes"]["values"] == {"[1, 2]": 1}
    # A text that looks like a number is not that number.
    assert found["splits"]["val"]["metadata"]["jersey_color"]["values"] == {'"7"': 1, "7": 1}


def test_metadata_of_many_values_are_summed_up(tmp_path: Path) -> None:
    count = MOST_VALUES + 5
    rows = [{"name": f"n{at:02d}", "noise": at / 10} for at in range(count)]
    rows.append({"name": "n07", "noise": 0.7})
    pictures = [("train", "0", flat(9, (8, 8)))] * len(rows)
    index = write_index(tmp_path, pictures, [json.dumps(row) for row in rows])

    found = statistics(index, SPEC)["splits"]["train"]["metadata"]

    assert next(iter(found["name"]["values"].items())) == ("n07", 2)
    assert len(found["name"]["values"]) == MOST_VALUES
    assert found["name"]["other"] == 5
    assert (found["name"]["rows"], found["name"]["distinct"]) == (count + 1, count)
    noises = [row["noise"] for row in rows]
    assert found["noise"]["median"] == pytest.approx(float(np.median(noises)))  # type: ignore[arg-type]
    assert "values" not in found["noise"]


@pytest.mark.parametrize("text", ['"plain text"', "3", "[]", '{"a": {"b": [NaN]}}', "1e999"])
def test_metadata_of_any_shape_are_described(text: str, tmp_path: Path) -> None:
    index = write_index(tmp_path, [("train", "0", flat(9, (8, 8)))] * 2, [text] * 2)

    found = statistics(index, SPEC)["splits"]["train"]["metadata"]

    assert [field["rows"] for field in found.values()] == [2]


def test_everything_is_plain_json(index: DataIndex) -> None:
    found = measured(index)

    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("count", [2, 43, 300])
@pytest.mark.parametrize("long", [False, True])
def test_the_picture_is_drawn_for_any_number_of_classes(
    count: int, long: bool, index: DataIndex, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Also for names that matplotlib or a terminal could take amiss."""
    content = measured(index)
    odd = ["$x_$", "\udce9", "a\nb", "<b>", ""]
    names = [odd[at] if at < len(odd) else f"{'class ' * 5 * long}{at}" for at in range(count)]
    for number, split in enumerate(content["splits"].values()):
        split["per_class"] = {name: at * (1 - number) for at, name in enumerate(names)}

    draw_statistics(content, tmp_path / "data" / "statistics.png")

    with Image.open(tmp_path / "data" / "statistics.png") as picture:
        assert picture.width == 1200
        assert np.asarray(picture.convert("L")).std() > 10
    assert [str(w.message) for w in recwarn if "layout" in str(w.message)] == []
