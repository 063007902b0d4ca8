"""Pixels that were decoded once, in memory that all loader processes share.

One layout serves both places: a file on disk, or an anonymous one in memory. The pixels of all
images stand behind each other, then comes the index, then a footer that says where it begins.
Entries are found by the content hash of their file, so that a changed file has none.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
from PIL import features

from classifier_training.data.decoding import DecodeSpec
from classifier_training.data.manifest import Manifest
from classifier_training.system.resources import available_cores

# Part of the key: to be raised when decoding, reducing or the layout changes.
VERSION = 1

_FOOTER = struct.Struct("<8sQQ32s")  # magic, entries, bytes of pixels, digest of index and key
_MAGIC = b"ctpixels"
ENTRY = np.dtype(
    [("hash", "u1", 16), ("offset", "<i8"), ("height", "<i4"), ("width", "<i4"), ("crc", "<u4")]
)
Entries = np.ndarray[tuple[int], np.dtype[np.void]]


class DamagedCacheError(Exception):
    """The file is not what was written. Never reaches a user: the cache is built again."""


@dataclass(frozen=True)
class PixelCache:
    """Decoded images of a manifest.

    Attributes:
        pixels: All images behind each other, uint8, mapped.
        entries: Where each begins, and its size.
        entry_of_row: ``(N,)`` int64: for each row of the manifest its entry, or -1.
    """

    pixels: npt.NDArray[np.uint8]
    entries: Entries
    entry_of_row: npt.NDArray[np.int64]

    def read(self, row: int) -> npt.NDArray[np.uint8] | None:
        """Return ``(H, W, 3)`` uint8, the caller's own; None when the image is not there."""
        at = int(self.entry_of_row[row])
        if at < 0:
            return None
        start, shape = int(self.entries["offset"][at]), self._shape(at)
        # A copy: a transform that works in place must not change what the next epoch sees.
        return self.pixels[start : start + shape[0] * shape[1] * 3].reshape(shape).copy()

    def require_sound(self) -> None:
        """Compare all pixels with their checksums.

        Raises:
            DamagedCacheError: They are not those that were written.
        """

        def is_sound(at: int) -> bool:
            height, width, channels = self._shape(at)
            start = int(self.entries["offset"][at])
            stored = self.pixels[start : start + height * width * channels]
            return zlib.crc32(stored.data) == int(self.entries["crc"][at])

        with ThreadPoolExecutor(available_cores()) as pool:
            if not all(pool.map(is_sound, range(len(self.entries)))):
                raise DamagedCacheError("pixels do not match their checksums")

    def _shape(self, at: int) -> tuple[int, int, int]:
        return int(self.entries["height"][at]), int(self.entries["width"][at]), 3


def cache_key(manifest: Manifest, rows: npt.NDArray[np.int64], recipe: DecodeSpec) -> str:
    """Return a text that changes with the pixels, labels and order of the images, the
    preprocessing, and the decoder.

    Args:
        manifest: The images.
        rows: Which of them, in order.
        recipe: What is made of each.
    """
    facts = {
        "version": VERSION,
        "recipe": recipe.facts(),
        "decoders": {
            "Pillow": PIL.__version__,
            **{
                name: features.version(name) for name in ("jpg", "libjpeg_turbo", "webp", "libtiff")
            },
        },
    }
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    digest.update(manifest.hashes[rows].tobytes())
    digest.update(manifest.labels[rows].tobytes())
    return digest.hexdigest()


def write_index(file: int, entries: Entries, size: int, key: str) -> None:
    """Close a file of pixels with its index.

    Args:
        file: Descriptor.
        entries: Of each image.
        size: Bytes of pixels.
        key: See :func:`cache_key`.
    """
    index = entries.tobytes()
    footer = _FOOTER.pack(_MAGIC, len(entries), size, _digest(index, key))
    write_at(file, memoryview(index + footer), size)


def write_at(file: int, data: memoryview, offset: int) -> None:
    """Write all of ``data``; the system may take it in pieces."""
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def map_cache(file: int, key: str, manifest: Manifest) -> PixelCache:
    """Map a file that :func:`write_index` closed.

    Raises:
        DamagedCacheError: It is cut, changed, or of another key.
        OSError: It cannot be mapped.
    """
    length = os.fstat(file).st_size
    if length < _FOOTER.size:
        raise DamagedCacheError("it is too short")
    magic, count, size, digest = _FOOTER.unpack(os.pread(file, _FOOTER.size, length - _FOOTER.size))
    if magic != _MAGIC or size + count * ENTRY.itemsize + _FOOTER.size != length:
        raise DamagedCacheError("its length is wrong")
    mapped = np.frombuffer(mmap.mmap(file, length, prot=mmap.PROT_READ), dtype=np.uint8)
    index = mapped[size : size + count * ENTRY.itemsize]
    if _digest(index.tobytes(), key) != digest:
        raise DamagedCacheError("its index does not match its checksum")
    entries: Entries = index.view(ENTRY)
    return PixelCache(mapped[:size], entries, _find_rows(manifest, entries))


def open_cache(path: Path, key: str, manifest: Manifest) -> PixelCache:
    """Map a file on disk, and compare all of it with its checksums.

    Raises:
        DamagedCacheError: See :func:`map_cache`.
        OSError: It is not there or cannot be read.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        cache = map_cache(file, key, manifest)
    finally:
        os.close(file)  # the mapping keeps it
    cache.require_sound()
    return cache


def _digest(index: bytes, key: str) -> bytes:
    return hashlib.blake2b(index + key.encode(), digest_size=32).digest()


def _find_rows(manifest: Manifest, entries: Entries) -> npt.NDArray[np.int64]:
    """Return for each manifest row the entry of the same content hash, or -1."""
    wanted, known = (
        np.ascontiguousarray(hashes).view("V16").reshape(-1)
        for hashes in (manifest.hashes, entries["hash"])
    )
    if not len(known):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    return np.where(known[order[at]] == wanted, order[at], -1)
