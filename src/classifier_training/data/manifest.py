"""The one table of images: path, label, split, source, line, group, content hash, metadata."""

from __future__ import annotations

import csv
import hashlib
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier_training.data.records import SPLITS, Record
from classifier_training.errors import DataError
from classifier_training.inference.class_map import ClassMap
from classifier_training.system.resources import available_cores
from classifier_training.system.tables import write_table


class PackedStrings:
    """An immutable sequence of strings in two numpy arrays.

    A list of a million ``str`` costs every forked worker a copy, because counting references
    writes to the pages; two arrays stay shared.
    """

    def __init__(self, values: Iterable[str]) -> None:
        # Paths may hold bytes that are no UTF-8; surrogateescape carries them through.
        encoded = [value.encode("utf-8", "surrogateescape") for value in values]
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        self._offsets: npt.NDArray[np.int64] = np.concatenate(([0], np.cumsum(lengths)))
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> str:
        start, end = self._offsets[index], self._offsets[index + 1]
        return self._bytes[start:end].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


COLUMNS = ("path", "label", "split", "source", "line", "group", "hash", "metadata")
# Manifests of runs from before groups were kept; reading them must go on working.
_COLUMNS_BEFORE_GROUPS = tuple(name for name in COLUMNS if name != "group")
_HASH_BYTES = 16
_FILES_A_TASK = 64  # handing a file to a thread takes as long as hashing it


@dataclass(frozen=True)
class Manifest:
    """Images in the order (split, path), as numpy arrays that worker processes share.

    Attributes:
        root: What relative paths are relative to.
        class_map: Names of the labels.
        paths: ``N`` paths.
        labels: ``(N,)`` int64 class indices.
        splits: ``(N,)`` uint8 indices into ``SPLITS``.
        sources: ``N`` names of the file that gave the row.
        lines: ``(N,)`` int32 line in it, 0 without lines.
        hashes: ``(N, 16)`` uint8 BLAKE2b of the file's bytes.
        metadata: ``N`` JSON texts, empty without metadata.
        groups: ``N`` names of what a split must not cut, empty for an image of its own.
    """

    root: Path
    class_map: ClassMap
    paths: PackedStrings
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.uint8]
    sources: PackedStrings
    lines: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint8]
    metadata: PackedStrings
    groups: PackedStrings

    @classmethod
    def build(
        cls,
        records: Sequence[Record],
        class_map: ClassMap,
        root: Path,
        *,
        hashes: Mapping[str, bytes] | None = None,
    ) -> Manifest:
        """Make the table, in the order (split, path).

        Args:
            records: What the sources gave, each with its split.
            class_map: Names of the labels.
            root: What the paths are relative to.
            hashes: What :func:`hash_files` returned; None hashes the files now.

        Raises:
            DataError: A file cannot be read.
        """
        ordered = sorted(records, key=lambda record: (SPLITS.index(record.split), record.path))
        if hashes is None:
            hashes = hash_files([record.path for record in ordered], root)
        content = b"".join(hashes[record.path] for record in ordered)
        return cls._from_rows(ordered, class_map, root, content)

    @classmethod
    def read(cls, path: Path, class_map: ClassMap, root: Path) -> Manifest:
        """Read a table that :meth:`write` wrote.

        Raises:
            DataError: It is damaged, or holds labels that the class map does not.
        """
        try:
            rows = _read_rows(path)
            records = [
                Record(
                    row["path"],
                    row["label"],
                    row["split"],
                    row["source"],
                    int(row["line"]),
                    row["metadata"],
                    row["group"],
                )
                for row in rows
            ]
            hashes = b"".join(bytes.fromhex(row["hash"]) for row in rows)
            return cls._from_rows(records, class_map, root, hashes)
        except (OSError, LookupError, ValueError, TypeError, ArithmeticError, csv.Error) as error:
            raise DataError(
                f"cannot read the manifest {path}: {error}",
                expected="the manifest.csv that the run wrote",
                fix="restore it from a copy of the run, or train again",
            ) from error

    @classmethod
    def _from_rows(
        cls, records: Sequence[Record], class_map: ClassMap, root: Path, hashes: bytes
    ) -> Manifest:
        return cls(
            root=root,
            class_map=class_map,
            paths=PackedStrings(record.path for record in records),
            labels=np.array([class_map.index(record.label) for record in records], dtype=np.int64),
            splits=np.array([SPLITS.index(record.split) for record in records], dtype=np.uint8),
            sources=PackedStrings(record.source for record in records),
            lines=np.array([record.line for record in records], dtype=np.int32),
            hashes=np.frombuffer(hashes, dtype=np.uint8).reshape(len(records), _HASH_BYTES),
            metadata=PackedStrings(record.metadata for record in records),
            groups=PackedStrings(record.group for record in records),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def file(self, index: int) -> Path:
        """Return the path of an image as it can be opened."""
        return self.root / self.paths[index]

    def describe(self, index: int) -> str:
        """Name an image for an error message: its path and the line that listed it."""
        path, source, line = self.paths[index], self.sources[index], int(self.lines[index])
        return f"{path} ({source}:{line})" if line else path

    def select(self, rows: npt.NDArray[np.int64]) -> Manifest:
        """Return some rows, in their order, under the same class map."""
        return Manifest(
            root=self.root,
            class_map=self.class_map,
            paths=_some(self.paths, rows),
            labels=self.labels[rows],
            splits=self.splits[rows],
            sources=_some(self.sources, rows),
            lines=self.lines[rows],
            groups=_some(self.groups, rows),
            hashes=self.hashes[rows],
            metadata=_some(self.metadata, rows),
        )

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Return the indices of a split's images, ascending."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def counts(self, split: str) -> npt.NDArray[np.int64]:
        """Return ``(C,)`` numbers of images of each class in a split."""
        return np.bincount(self.labels[self.rows(split)], minlength=len(self.class_map))

    def fingerprint(self) -> str:
        """Return a SHA-256 over paths, labels, splits and contents; equal data, equal text."""
        digest = hashlib.sha256()
        for name in self.class_map.names:
            digest.update(name.encode() + b"\0")
        for index in range(len(self)):
            digest.update(self.paths[index].encode("utf-8", "surrogateescape") + b"\0")
        for array in (self.labels, self.splits, self.hashes):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write the table as CSV, complete or not at all."""
        names = self.class_map.names
        write_table(
            path,
            COLUMNS,
            (
                (
                    self.paths[index],
                    names[self.labels[index]],
                    SPLITS[self.splits[index]],
                    self.sources[index],
                    int(self.lines[index]),
                    self.groups[index],
                    self.hashes[index].tobytes().hex(),
                    self.metadata[index],
                )
                for index in range(len(self))
            ),
        )


def _some(strings: PackedStrings, rows: npt.NDArray[np.int64]) -> PackedStrings:
    return PackedStrings(strings[int(row)] for row in rows)


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Read the cells of a manifest.

    Raises:
        csv.Error: Not a table, or one whose rows do not have the columns.
    """
    limit = csv.field_size_limit(sys.maxsize)  # metadata may be long; the limit is for strangers
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            table = list(csv.reader(file, strict=True))
    finally:
        csv.field_size_limit(limit)
    columns = tuple(table[0]) if table else ()
    is_known = columns in (COLUMNS, _COLUMNS_BEFORE_GROUPS)
    if not is_known or any(len(row) != len(columns) for row in table):
        raise csv.Error(f"not every row has the columns {', '.join(COLUMNS)}")
    return [{"group": "", **dict(zip(columns, row, strict=True))} for row in table[1:]]


def hash_files(paths: Sequence[str], root: Path) -> dict[str, bytes]:
    """Return the 16-byte BLAKE2b of each file's content, by path.

    Raises:
        DataError: A file cannot be read.
    """
    parts = [paths[start : start + _FILES_A_TASK] for start in range(0, len(paths), _FILES_A_TASK)]
    with ThreadPoolExecutor(available_cores()) as pool:
        hashed = pool.map(lambda part: [_content_hash(root / path) for path in part], parts)
        return dict(zip(paths, itertools.chain.from_iterable(hashed), strict=True))


def _content_hash(file: Path) -> bytes:
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=_HASH_BYTES).digest()
    except OSError as error:
        raise DataError(
            f"cannot read image {file}: {error.strerror or error}",
            expected="every listed image to be readable",
            fix="restore the file or its permissions, or remove its row",
        ) from error
