"""Measurements of images, against Pillow, imagehash and images made for the purpose."""

from __future__ import annotations

import os
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageStat

from classifier_training.data.image_stats import ImageStats, measure_images
from classifier_training.data.index import index_data
from classifier_training.data.manifest import Manifest
from classifier_training.data.perceptual_hash import perceptual_hash, sample
from classifier_training.errors import DataError
from classifier_training.system.parallel import map_parts
from tests.helpers.config import data_config
from tests.helpers.planted_faults import write_textures


def texture(seed: int, size: tuple[int, int], *, detail: int = 8) -> Image.Image:
    """Smooth noise with a mean and a deviation of its own in each channel."""
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.integers(0, 256, (2, 3)), axis=0)
    coarse = rng.integers(low, high + 1, (detail, detail, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def manifest_of(root: Path, images: dict[str, Image.Image | bytes]) -> Manifest:
    """Write files as one class of train, and index them with another class."""
    for split in ("train", "val"):
        folder = root / split / "other"
        folder.mkdir(parents=True)
        Image.new("RGB", (20, 20), {"train": "red", "val": "blue"}[split]).save(folder / "1.png")
    for name, content in images.items():
        path = root / "train" / "a" / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path)
    return index_data(data_config(root)).manifest


def row_of(manifest: Manifest, name: str) -> int:
    """Find the row of a file."""
    return next(row for row in range(len(manifest)) if manifest.paths[row].endswith(f"/{name}"))


def test_sizes_means_and_deviations_are_those_of_pillow(tmp_path: Path) -> None:
    images = {f"{seed}.png": texture(seed, (150 + 40 * seed, 300 - 20 * seed)) for seed in range(8)}
    manifest = manifest_of(tmp_path, dict(images))
    facts = measure_images(manifest, workers=1)
    for name, image in images.items():
        row = row_of(manifest, name)
        expected = ImageStat.Stat(image)
        assert (facts.widths[row], facts.heights[row]) == image.size
        np.testing.assert_allclose(facts.means[row], np.array(expected.mean) / 255, atol=0.01)
        np.testing.assert_allclose(facts.stds[row], np.array(expected.stddev) / 255, atol=0.01)
        assert facts.file_bytes[row] == manifest.file(row).stat().st_size
        assert facts.formats[row] == "PNG"
        assert facts.errors[row] == ""


def test_a_thin_line_on_one_colour_is_no_single_colour(tmp_path: Path) -> None:
    image = Image.new("RGB", (1000, 1000), "white")
    image.paste("black", (501, 0, 502, 1000))
    manifest = manifest_of(tmp_path, {"line.png": image})
    facts = measure_images(manifest, workers=1)
    assert facts.stds[row_of(manifest, "line.png")].min() == pytest.approx(0.0316, abs=1e-3)


def test_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "train" / "a").mkdir(parents=True)
    texture(0, (60, 30)).save(tmp_path / "train" / "a" / "turned.jpg", exif=exif)
    manifest = manifest_of(tmp_path, {})
    facts = measure_images(manifest, workers=1)
    row = row_of(manifest, "turned.jpg")
    assert (facts.widths[row], facts.heights[row]) == (30, 60)


@pytest.mark.promise("D4")
def test_an_image_that_cannot_be_decoded_says_why_in_one_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    texture(0, (64, 64)).save(whole)
    manifest = manifest_of(
        tmp_path / "data",
        {
            "cut.jpg": whole.read_bytes()[:-200],
            "empty.jpg": b"",
            "text.jpg": b"no\nimage",
            "good.png": texture(1, (64, 64)),
        },
    )
    facts = measure_images(manifest, workers=1)
    reasons = {Path(manifest.paths[row]).name: facts.errors[row] for row in range(len(manifest))}
    assert "truncated" in reasons["cut.jpg"]
    assert reasons["empty.jpg"] == "it is empty"
    assert reasons["text.jpg"] == "not an image in a known format"
    assert reasons["good.png"] == ""
    assert all("\n" not in reason for reason in reasons.values())
    expected = [not reasons[Path(manifest.paths[row]).name] for row in range(len(manifest))]
    assert facts.decoded.tolist() == expected


def test_pixel_hashes_are_equal_exactly_for_equal_pixels(tmp_path: Path) -> None:
    image = texture(3, (400, 500))
    almost = image.copy()
    almost.putpixel((201, 333), tuple(255 - value for value in image.getpixel((201, 333))))
    exif = Image.Exif()
    exif[0x0112] = 3
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    image.transpose(Image.Transpose.ROTATE_180).save(folder / "turned.png", exif=exif)
    manifest = manifest_of(
        tmp_path,
        {"1.png": image, "same.bmp": image, "almost.png": almost, "flat.png": image.rotate(180)},
    )
    hashes = measure_images(manifest, workers=1).pixel_hashes
    of = {
        name: hashes[row_of(manifest, name)].tobytes()
        for name in ("1.png", "same.bmp", "turned.png", "almost.png", "flat.png")
    }
    assert of["1.png"] == of["same.bmp"] == of["turned.png"]
    assert len(set(of.values())) == 3


def test_pixel_hashes_know_the_size(tmp_path: Path) -> None:
    sizes = {"a.png": (30, 60), "b.png": (60, 30), "c.png": (45, 40)}
    manifest = manifest_of(
        tmp_path, {name: Image.new("RGB", size, "white") for name, size in sizes.items()}
    )
    hashes = measure_images(manifest, workers=1).pixel_hashes
    assert len({hashes[row_of(manifest, name)].tobytes() for name in sizes}) == 3


@pytest.mark.parametrize("seed", range(20))
def test_perceptual_hash_of_32_pixels_is_that_of_imagehash(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGB")
    expected = int(str(imagehash.phash(image)), 16)
    assert perceptual_hash(sample(np.asarray(image))) == expected


@pytest.mark.parametrize("size", [(200, 150), (401, 533), (90, 120), (1000, 700)])
def test_perceptual_hash_is_close_to_that_of_imagehash(size: tuple[int, int]) -> None:
    for seed in range(10):
        image = texture(seed, size, detail=12)
        expected = int(str(imagehash.phash(image)), 16)
        assert (perceptual_hash(sample(np.asarray(image))) ^ expected).bit_count() <= 6


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    manifest = index_data(data_config(write_textures(tmp_path, classes=4))).manifest
    seen: list[tuple[int, int]] = []
    alone = measure_images(manifest, workers=1)
    several = measure_images(
        manifest, workers=3, on_images=lambda done, total: seen.append((done, total))
    )
    assert_same(several, alone)
    assert seen[-1] == (len(manifest), len(manifest))
    assert sorted(seen) == seen


def assert_same(found: ImageStats, expected: ImageStats) -> None:
    """Compare all facts."""
    assert list(found.errors) == list(expected.errors)
    assert list(found.formats) == list(expected.formats)
    for name in ("widths", "heights", "file_bytes", "means", "stds", "pixel_hashes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.perceptual_hashes, expected.perceptual_hashes)


def _end_this_process(_paths: list[str]) -> int:
    os._exit(9)


def test_a_killed_process_is_an_error_and_no_traceback() -> None:
    with pytest.raises(DataError, match="ended by the system"):
        list(map_parts(_end_this_process, iter(["x"] * 200), 200, workers=2))


def test_facts_are_read_back_for_the_same_contents_wherever_they_stand(tmp_path: Path) -> None:
    images = {f"{seed}.png": texture(seed, (64, 48)) for seed in range(6)}
    manifest = manifest_of(tmp_path / "data", {**images, "bad.jpg": b"\xff\xd8\xffno"})
    facts = measure_images(manifest, workers=1)
    stored = tmp_path / "facts.npz"
    facts.write(stored, manifest)

    assert_same(ImageStats.read(stored, manifest), facts)
    rows = np.array([5, 0, 3])
    assert_same(ImageStats.read(stored, manifest.select(rows)), facts.select(rows))


def test_facts_of_other_images_are_refused(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "data", {"1.png": texture(1, (64, 48))})
    stored = tmp_path / "facts.npz"
    measure_images(manifest, workers=1).write(stored, manifest)
    other = manifest_of(tmp_path / "other", {"1.png": texture(2, (64, 48))})
    with pytest.raises(DataError, match="lack images"):
        ImageStats.read(stored, other)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:300], lambda data: b"x"])
def test_damaged_facts_are_a_data_error(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    manifest = manifest_of(tmp_path / "data", {"1.png": texture(1, (64, 48))})
    stored = tmp_path / "facts.npz"
    measure_images(manifest, workers=1).write(stored, manifest)
    stored.write_bytes(damage(stored.read_bytes()))
    with pytest.raises(DataError, match="cannot read the image facts"):
        ImageStats.read(stored, manifest)
