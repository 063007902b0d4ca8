"""What ``data.group_by`` may say: ``field:NAME`` or ``path:REGEX``."""

from __future__ import annotations

import re
from typing import NamedTuple


class GroupBy(NamedTuple):
    """Where the group of an image stands: in a field of its row, or in its path.

    Exactly one of the two is not None; ``pattern`` has one capturing group.
    """

    field: str | None
    pattern: re.Pattern[str] | None


def parse_group_by(text: str) -> GroupBy:
    """Read the text of ``data.group_by``.

    Raises:
        ValueError: It is neither form, or its regular expression is at fault.
    """
    kind, _, rest = text.partition(":")
    if kind == "field" and rest:
        return GroupBy(rest, None)
    if kind != "path" or not rest:
        raise ValueError(f"{text!r} is neither field:NAME nor path:REGEX")
    try:
        pattern = re.compile(rest)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{rest!r} is no regular expression: {error}") from error
    if pattern.groups != 1:
        raise ValueError(
            f"{rest!r} has {pattern.groups} capturing groups; put one pair of parentheses around "
            "the part that names the group, (?:...) around others"
        )
    return GroupBy(None, pattern)
