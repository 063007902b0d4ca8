"""Every promise has a test that carries its id, and every test that the docs name exists."""

from __future__ import annotations

import re
from pathlib import Path

from tests.helpers.promises import by_promise, marked_tests

ROOT = Path(__file__).parents[2]


def test_every_promise_has_a_test() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    promised = set(re.findall(r"^- \*\*([A-Z]+\d+)\*\*", text, flags=re.MULTILINE))

    assert promised
    assert promised - by_promise().keys() == set()


def test_every_test_that_the_comparison_names_exists() -> None:
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/\S+?::\w+)`", text))

    assert named
    assert named - {name for name, _ in marked_tests()} == set()
