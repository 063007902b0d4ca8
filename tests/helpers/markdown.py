"""A Markdown file as its reader sees it: rendered by markdown-it, with tables."""

from __future__ import annotations

from html.parser import HTMLParser

from markdown_it import MarkdownIt

_RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def fences(text: str, language: str) -> list[str]:
    """Return the contents of the blocks of code of a language."""
    tokens = _RENDERER.parse(text)
    return [item.content for item in tokens if item.type == "fence" and item.info == language]


class Rendered(HTMLParser):
    """What a renderer makes of Markdown.

    Attributes:
        tags: Names of all elements.
        rows: Text of the cells of every table row.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self._is_cell = False
        self.feed(_RENDERER.render(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a row or a cell."""
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        self._is_cell = self._is_cell or tag in ("td", "th")
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Close a cell."""
        self._is_cell = self._is_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        """Add to a cell."""
        if self._is_cell:
            self.rows[-1][-1] += data
