"""Kills at random moments lose nothing: the slow tier runs a hundred of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import SCENARIOS, Harness, Scenario


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.promise("R1")
@pytest.mark.promise("R2")
@pytest.mark.promise("R3")
@pytest.mark.promise("R7")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_killed_runs_end_as_if_nothing_had_happened(scenario: Scenario, tmp_path: Path) -> None:
    harness = Harness(tmp_path, seed=SCENARIOS.index(scenario))

    harness.attack(scenario, 17)

    assert harness.report.losses == [], str(harness.report)
    assert harness.report.recoveries == harness.report.total >= 17
