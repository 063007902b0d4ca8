"""Strings as one block of bytes, so that worker processes share them without copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt


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
