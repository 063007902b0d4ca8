"""Markdown that no class name, path or command can break."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Other marks mean something at the start of a line alone, where no name stands. Not all renderers
# know a backslash before the characters that get an entity.
_ESCAPES = str.maketrans(
    {char: f"\\{char}" for char in "\\`*_[]#!"}
    | {char: f"&#{ord(char)};" for char in "|~$@"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
)
# What GitHub makes a link of without being asked.
_LINK = re.compile(r"://|www\.", re.IGNORECASE)


def text(value: str, longest: int = 60) -> str:
    """Return a name as text that shows it as it is, on one line; what is too long is cut."""
    shown = value if len(value) <= longest else f"{value[: longest - 1]}…"
    escaped = printable(shown).translate(_ESCAPES)
    return _LINK.sub(lambda link: link[0].replace(":", "&#58;").replace(".", "&#46;"), escaped)


def printable(value: str) -> str:
    """Write out line breaks, control characters, and marks that turn the direction of text."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in value
    )


def block(content: str, language: str) -> str:
    """Return lines in a block of code that nothing inside can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", content)), default=0))
    return f"{fence}{language}\n{content.rstrip()}\n{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table: the first column on the left, the others, of numbers, on the right.

    Args:
        header: Titles.
        rows: Cells, escaped already.
    """
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def bullets(lines: Iterable[str]) -> str:
    """Return a list."""
    return "\n".join(f"- {line}" for line in lines)
