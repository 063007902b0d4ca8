"""Every promise in docs/promises.md has a test that carries its id."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

COLLECT = """
import pytest

class Collector:
    def pytest_collection_modifyitems(self, items):
        marks = {mark.args[0] for item in items for mark in item.iter_markers("promise")}
        print("PROMISES", *sorted(marks))

pytest.main(["--collect-only", "-q", "-m", "", "-p", "no:xdist", "-p", "no:cacheprovider", "tests"],
            plugins=[Collector()])
"""


def test_every_promise_has_a_test() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    promised = set(re.findall(r"^- \*\*([A-Z]+\d+)\*\*", text, flags=re.MULTILINE))

    done = subprocess.run(
        [sys.executable, "-c", COLLECT], cwd=ROOT, capture_output=True, text=True, check=False
    )

    found = next(line for line in done.stdout.splitlines() if line.startswith("PROMISES"))
    assert promised
    assert promised - set(found.split()[1:]) == set()
