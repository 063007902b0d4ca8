"""The one mapping between class names and indices, kept as strings from parse to sidecar."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from classifier_training.errors import DataError


@dataclass(frozen=True)
class ClassMap:
    """Class names in index order. Names are strings: "0", "00" and "NO" stay three classes.

    Raises:
        DataError: A name is not a string, empty, or stands twice; or fewer than two names.
    """

    names: tuple[str, ...]
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in self.names:
            if not isinstance(name, str) or not name:
                raise DataError(
                    f"class name {name!r} is not a non-empty string",
                    expected="every class name to be a non-empty string",
                    fix='quote it in YAML: classes: ["00", "NO"], or list them in a text file',
                )
        duplicates = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if duplicates:
            raise DataError(
                f"class names stand twice: {', '.join(map(repr, duplicates))}",
                expected="each class name once",
                fix="remove the repeated names from data.classes",
            )
        if len(self.names) < 2:
            raise DataError(
                f"the data has {len(self.names)} class(es): {list(self.names)}",
                expected="at least two classes",
                fix="check data.data_root: each class is a folder (or a label in the JSONL/CSV)",
            )
        object.__setattr__(self, "_index", {name: i for i, name in enumerate(self.names)})

    @classmethod
    def from_labels(cls, labels: Iterable[str]) -> ClassMap:
        """Sort distinct labels the way ``torchvision.datasets.ImageFolder`` sorts its folders."""
        return cls(tuple(sorted(set(labels))))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def index(self, name: str) -> int:
        """Return the index of a class name.

        Raises:
            KeyError: The name is no class.
        """
        return self._index[name]

    def closest(self, name: str) -> str | None:
        """Return the class name that looks most like ``name``, for error messages."""
        found = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
        return found[0] if found else None

    def as_class_to_idx(self) -> dict[str, int]:
        """Return ``{name: index}`` as the sidecar stores it."""
        return dict(self._index)

    def as_idx_to_class(self) -> dict[str, str]:
        """Return ``{"index": name}``; JSON object keys are strings."""
        return {str(i): name for i, name in enumerate(self.names)}
