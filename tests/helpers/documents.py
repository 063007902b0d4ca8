"""Commands and snippets that README and docs tell a reader to run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^ *```(\w*) *$")
# What `    classifier ...` is called: a command in an indented block.
_INDENTED = re.compile(r"^ {4,}(classifier|task_manager) (?!train -m seed=0,1,2 \.\.\.)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        place: ``file:line``.
        language: What stands behind the fence.
        text: Its lines.
    """

    place: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command of a block."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {' '.join(self.words)}"


def documents() -> list[Path]:
    """Return README, CONTRIBUTING, the examples' and every page."""
    own = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("examples/**/*.md"))]
    return [*own, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks() -> Iterator[Block]:
    """Yield the fenced blocks of all documents; indented commands as blocks of ``bash``."""
    for path in documents():
        lines = path.read_text(encoding="utf-8").splitlines()
        name = path.relative_to(ROOT)
        number = 0
        while number < len(lines):
            opened = _FENCE.match(lines[number])
            if opened:
                end = next(i for i in range(number + 1, len(lines)) if _FENCE.match(lines[i]))
                text = "\n".join(lines[number + 1 : end])
                yield Block(f"{name}:{number + 1}", opened[1], text)
                number = end
            elif _INDENTED.match(lines[number]):
                end = number
                while end + 1 < len(lines) and lines[end].rstrip().endswith("\\"):
                    end += 1
                yield Block(f"{name}:{number + 1}", "bash", "\n".join(lines[number : end + 1]))
                number = end
            number += 1


def commands() -> list[Command]:
    """Return the commands of all shell blocks."""
    found = []
    for block in blocks():
        if block.language not in ("bash", "console", "sh"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(Command(block.place, tuple(words)))
    return found
