"""What one full decoding of every image finds: the measurements that all checks judge."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from classifier_training.data.decoding import decode_pixels
from classifier_training.data.manifest import Manifest, PackedStrings
from classifier_training.data.perceptual_hash import perceptual_hash, sample
from classifier_training.errors import DataError
from classifier_training.system.files import replacing
from classifier_training.system.parallel import map_parts

# Part of the stored file: facts of another version are measured again, not read.
VERSION = 2

_HASH_BYTES = 16
_GRID = 64  # pixels a side of the grid that mean and deviation are taken over
_FLAT_STD = 0.01  # below this deviation of the grid, every pixel is looked at

_LEVELS = np.arange(256) / 255

# First bytes of a file, and the name of its format as Pillow has it.
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    *((b"P%d" % number, "PPM") for number in range(1, 7)),
)


@dataclass(frozen=True)
class ImageStats:
    """Facts of the ``N`` images of a manifest, aligned with its rows.

    Attributes:
        errors: Why the image cannot be decoded, one line; empty when it was decoded completely.
        formats: What its first bytes say it is, as Pillow names it; empty when unknown.
        widths: ``(N,)`` int32 pixels after EXIF orientation; 0 when undecodable.
        heights: ``(N,)`` int32, as ``widths``.
        file_bytes: ``(N,)`` int64.
        means: ``(N, 3)`` float32 mean of red, green and blue, 0..1, over a grid of pixels.
        stds: ``(N, 3)`` float32 standard deviation of them over the same grid.
        pixel_hashes: ``(N, 16)`` uint8, equal for two images of this table when (and, but for
            collisions of BLAKE2b, only when) their size and decoded pixels are equal. They cannot
            be compared with those of another table.
        perceptual_hashes: ``(N,)`` uint64; see :func:`perceptual_hash`.
    """

    errors: PackedStrings
    formats: PackedStrings
    widths: npt.NDArray[np.int32]
    heights: npt.NDArray[np.int32]
    file_bytes: npt.NDArray[np.int64]
    means: npt.NDArray[np.float32]
    stds: npt.NDArray[np.float32]
    pixel_hashes: npt.NDArray[np.uint8]
    perceptual_hashes: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.widths)

    @property
    def decoded(self) -> npt.NDArray[np.bool_]:
        """``(N,)``: whether each image could be decoded."""
        return self.widths > 0

    def select(self, rows: npt.NDArray[np.int64]) -> ImageStats:
        """Return the facts of some rows, in their order."""
        return ImageStats(
            errors=PackedStrings(self.errors[int(row)] for row in rows),
            formats=PackedStrings(self.formats[int(row)] for row in rows),
            widths=self.widths[rows],
            heights=self.heights[rows],
            file_bytes=self.file_bytes[rows],
            means=self.means[rows],
            stds=self.stds[rows],
            pixel_hashes=self.pixel_hashes[rows],
            perceptual_hashes=self.perceptual_hashes[rows],
        )

    def write(self, path: Path, manifest: Manifest) -> None:
        """Write a ``.npz`` file without pickles, atomically.

        Args:
            path: The file.
            manifest: What was measured. The hashes of its files are stored, since facts belong to
                contents: whichever rows name them, and under which label.
        """
        arrays = {"version": np.array(VERSION), "contents": manifest.hashes}
        for field in fields(self):
            value = getattr(self, field.name)
            arrays[field.name] = _pack(value) if isinstance(value, PackedStrings) else value
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its allow_pickle

    @classmethod
    def read(cls, path: Path, manifest: Manifest) -> ImageStats:
        """Read what :meth:`write` wrote, as far as it is about the images of ``manifest``.

        Raises:
            DataError: It is missing, damaged, of another version, or lacks one of the images.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                if int(stored["version"]) != VERSION:
                    raise ValueError(f"version {stored['version']}, not {VERSION}")
                arrays = {field.name: stored[field.name] for field in fields(cls)}
                contents = stored["contents"]
            strings = {name: _unpack(arrays[name]) for name in ("errors", "formats")}
            facts = cls(**{**arrays, **strings})
            if any(len(getattr(facts, name)) != len(contents) for name in arrays):
                raise ValueError("not every image has its facts")
            rows = _find(manifest.hashes, contents)
        except (OSError, EOFError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(
                f"cannot read the image facts {path}: {error}",
                expected="the facts of this data, as the run wrote them",
                fix="remove the file; the images are then measured again",
            ) from error
        is_same = len(rows) == len(contents) and bool((rows == np.arange(len(rows))).all())
        return facts if is_same else facts.select(rows)


# What is noted of an image besides texts.
_ROW = np.dtype(
    [
        ("size", np.int32, 2),
        ("file_bytes", np.int64),
        ("mean", np.float32, 3),
        ("std", np.float32, 3),
        ("pixel_hash", np.uint8, _HASH_BYTES),
        ("perceptual_hash", np.uint64),
    ]
)


class _Part(NamedTuple):
    rows: npt.NDArray[np.void]
    errors: list[str]
    formats: list[str]


def measure_images(
    manifest: Manifest, *, workers: int, on_images: Callable[[int, int], None] | None = None
) -> ImageStats:
    """Decode every image once, completely, and note what was found.

    Args:
        manifest: The images.
        workers: Processes; with 1, or for few images, this one does it all.
        on_images: Called with (done, total).

    Raises:
        DataError: The system ended one of the processes.
    """
    total = len(manifest)
    table = np.zeros(total, dtype=_ROW)
    errors: list[str] = []
    formats: list[str] = []
    paths = (str(manifest.file(row)) for row in range(total))
    for part in map_parts(_measure, paths, total, workers=workers):
        table[len(errors) : len(errors) + len(part.errors)] = part.rows
        errors += part.errors
        formats += part.formats
        if on_images is not None:
            on_images(len(errors), total)
    _settle(table, manifest, workers)
    return ImageStats(
        errors=PackedStrings(errors),
        formats=PackedStrings(formats),
        widths=table["size"][:, 0].copy(),
        heights=table["size"][:, 1].copy(),
        file_bytes=table["file_bytes"].copy(),
        means=table["mean"].copy(),
        stds=table["std"].copy(),
        pixel_hashes=table["pixel_hash"].copy(),
        perceptual_hashes=table["perceptual_hash"].copy(),
    )


def image_format(data: bytes) -> str:
    """Say what the first bytes of a file make it, as Pillow names formats; empty when unknown."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for start, name in _SIGNATURES if data.startswith(start)), "")


def equal_rows(hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Number the distinct rows of ``(N, B)`` hashes: ``(N,)``, equal where the rows are."""
    _, group = np.unique(hashes, axis=0, return_inverse=True)
    return group.reshape(-1).astype(np.int64)  # numpy 2.0 returned a column


def _measure(paths: list[str]) -> _Part:
    """Measure some images, in whichever process."""
    part = _Part(np.zeros(len(paths), dtype=_ROW), [""] * len(paths), [""] * len(paths))
    for place, path in enumerate(paths):
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            part.errors[place] = f"cannot be read: {error.strerror or error}"
            continue
        part.formats[place] = image_format(data)
        row = part.rows[place]
        row["file_bytes"] = len(data)
        try:
            pixels = decode_pixels(data, "", None)  # as training reads it
        except DataError as error:
            part.errors[place] = _reason(error)
            continue
        sampled = sample(pixels)
        grid = sampled.resize((_GRID, _GRID), Image.Resampling.NEAREST)
        row["size"] = pixels.shape[1::-1]
        row["mean"], row["std"] = _moments(pixels, grid)
        row["pixel_hash"] = _pixel_hash(pixels.shape, grid.tobytes())
        row["perceptual_hash"] = perceptual_hash(sampled)
    return part


def _reason(error: DataError) -> str:
    reason = error.what.removeprefix("cannot decode image ").removeprefix(": ")
    return " ".join(reason.replace("\0", " ").split())


def _moments(
    pixels: npt.NDArray[np.uint8], grid: Image.Image
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and deviation per channel, 0..1, over a grid of pixels as they are.

    An averaged copy would have too small a deviation, by which normalisation is judged.
    """
    means, stds = _from_histogram(grid)
    if stds.max() < _FLAT_STD:
        means, stds = _from_histogram(Image.fromarray(pixels))  # one line on white is an image
    return means, stds


def _from_histogram(
    image: Image.Image,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    counts = np.array(image.histogram(), dtype=np.float64).reshape(3, 256)
    counts /= image.width * image.height
    means = counts @ _LEVELS
    return means, np.sqrt(np.maximum(counts @ _LEVELS**2 - means**2, 0))


def _pixel_hash(
    shape: tuple[int, ...], content: bytes | memoryview, person: bytes = b"grid"
) -> npt.NDArray[np.uint8]:
    digest = hashlib.blake2b(content, digest_size=_HASH_BYTES, person=person)
    digest.update(b"%dx%d" % (shape[1], shape[0]))
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def _settle(table: npt.NDArray[np.void], manifest: Manifest, workers: int) -> None:
    """Let all pixels decide where the grids of files with different bytes agree.

    Hashing all pixels of all images would take half as long as decoding them.
    """
    rows = np.flatnonzero(table["size"][:, 0])
    by_grid = equal_rows(table["pixel_hash"][rows])
    by_content = equal_rows(
        np.concatenate((by_grid[:, None].view(np.uint8), manifest.hashes[rows]), axis=1)
    )
    contents = np.bincount(by_grid[np.unique(by_content, return_index=True)[1]])
    rows = rows[contents[by_grid] > 1]
    paths = (str(manifest.file(int(row))) for row in rows)
    done = 0
    for hashes in map_parts(_hash_all_pixels, paths, len(rows), workers=workers):
        table["pixel_hash"][rows[done : done + len(hashes)]] = hashes
        done += len(hashes)


def _hash_all_pixels(paths: list[str]) -> npt.NDArray[np.uint8]:
    hashes = np.zeros((len(paths), _HASH_BYTES), dtype=np.uint8)
    for place, path in enumerate(paths):
        pixels = decode_pixels(Path(path).read_bytes(), path, None)
        hashes[place] = _pixel_hash(pixels.shape, pixels.data, person=b"all pixels")
    return hashes


def _find(wanted: npt.NDArray[np.uint8], known: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return where in ``known`` each row of ``wanted`` stands; both are ``(N, 16)``."""
    # As bytes of a fixed length they can be sorted; numpy passes over zeros at their end, alike.
    keys, sought = (
        np.ascontiguousarray(table).view(f"S{_HASH_BYTES}").reshape(-1) for table in (known, wanted)
    )
    order = np.argsort(keys, kind="stable")
    places = np.searchsorted(keys, sought, sorter=order)
    rows = order[np.minimum(places, len(order) - 1)]
    if len(wanted) and (not len(known) or (keys[rows] != sought).any()):
        raise ValueError("they lack images of this data")
    return rows.astype(np.int64)


def _pack(strings: PackedStrings) -> npt.NDArray[np.uint8]:
    text = "".join(f"{value}\0" for value in strings)
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8)


def _unpack(packed: npt.NDArray[np.uint8]) -> PackedStrings:
    text = packed.tobytes().decode("utf-8", "surrogateescape")
    return PackedStrings(text.split("\0")[:-1])
