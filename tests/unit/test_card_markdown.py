"""Names in Markdown: shown as they are, and nothing else."""

from __future__ import annotations

import pytest

from classifier_training.report.markdown import block, table, text
from tests.helpers.markdown import Rendered, fences

NAMES = [
    "00",
    "été 日本",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](x.png)",
    "**bold** _it_ ~~gone~~ `code`",
    "a | b || c",
    "a\\|b\\",
    "&lt;b&gt; &amp; &#60;",
    "<!-- comment",
    "# heading",
    "- item",
    "1. one",
    "> quote",
    "---",
    "$x^2$ $$y$$",
    "=cmd|' /C calc'!A0",
    'say "hi", twice',
    "[ref]: x",
    "https://example.org/?a=1",
    "www.example.org",
    "@somebody",
]


@pytest.mark.promise("S2")
@pytest.mark.parametrize("name", NAMES)
def test_name_is_shown_as_it_is_in_a_table(name: str) -> None:
    rendered = Rendered(table(["class", "images"], [[text(name), "3"]]))

    assert rendered.rows == [["class", "images"], [name, "3"]]
    assert rendered.tags == {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.promise("S2")
@pytest.mark.parametrize("name", NAMES)
def test_name_is_no_markup_in_a_sentence(name: str) -> None:
    assert Rendered(f"Classes: {text(name)}, {text(name)}.").tags == {"p"}


@pytest.mark.promise("S2")
@pytest.mark.parametrize(
    "link", ["https://example.org", "HTTP://a.b", "www.example.org", "WWW.a.b"]
)
def test_no_renderer_makes_a_link_of_a_name(link: str) -> None:
    assert "://" not in text(link)
    assert "www." not in text(link).lower()


@pytest.mark.promise("S2")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("line\nbreak", r"line\nbreak"),
        ("tab\there", r"tab\there"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("turned \u202e round", r"turned \u202e round"),
        ("bytes \udce9", r"bytes \udce9"),
        ("x" * 300, "x" * 59 + "…"),
    ],
)
def test_what_cannot_be_printed_is_written_out(name: str, shown: str) -> None:
    cells = Rendered(table(["class", "images"], [[text(name), "3"]])).rows[1]

    assert cells == [shown, "3"]


@pytest.mark.promise("S2")
@pytest.mark.parametrize("content", ["plain", "```\n# out\n```", "`````", "a ```` b"])
def test_nothing_ends_a_block_of_code(content: str) -> None:
    assert fences(block(content, "sh"), "sh") == [f"{content}\n"]
