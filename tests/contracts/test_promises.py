"""Every promise has a test that carries its id, and every test that the docs name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COLLECT = """
import pytest

class Collector:
    def pytest_collection_modifyitems(self, items):
        marks = {mark.args[0] for item in items for mark in item.iter_markers("promise")}
        print("PROMISES", *sorted(marks))
        print("TESTS", *sorted({item.nodeid.partition("[")[0] for item in items}))

pytest.main(["--collect-only", "-q", "-m", "", "-p", "no:xdist", "-p", "no:cacheprovider", "tests"],
            plugins=[Collector()])
"""


@pytest.fixture(scope="module")
def collected() -> dict[str, set[str]]:
    """Ids of promises and names of tests, as pytest collects them."""
    done = subprocess.run(
        [sys.executable, "-c", COLLECT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    words = [line.split() for line in done.stdout.splitlines()]
    return {line[0]: set(line[1:]) for line in words if line and line[0] in ("PROMISES", "TESTS")}


def test_every_promise_has_a_test(collected: dict[str, set[str]]) -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    promised = set(re.findall(r"^- \*\*([A-Z]+\d+)\*\*", text, flags=re.MULTILINE))

    assert promised
    assert promised - collected["PROMISES"] == set()


def test_every_test_that_the_comparison_names_exists(collected: dict[str, set[str]]) -> None:
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/\S+?::\w+)`", text))

    assert named
    assert named - collected["TESTS"] == set()
