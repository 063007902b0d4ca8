"""The fault harness by hand: ``python -m tests.faults --kills 100 --seed 0``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.faults.harness import SCENARIOS, Harness
from tests.helpers.tiny import register


def main() -> int:
    """Attack every scenario and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="name of one scenario")
    parser.add_argument("--keep", type=Path, help="a folder for the runs; removed without it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    register()
    chosen = [s for s in SCENARIOS if given.only in (None, s.name)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        harness = Harness(folder, given.seed)
        started = time.monotonic()
        for number, scenario in enumerate(chosen):
            kills = (given.kills + len(chosen) - 1 - number) // len(chosen)
            harness.attack(scenario, kills)
            report = harness.report
            print(
                f"{scenario.name}: so far {report.total} kills, {report.recoveries} recoveries, "
                f"{len(report.losses)} losses, {time.monotonic() - started:.0f} s",
                flush=True,
            )
        print(harness.report)
    return int(bool(harness.report.losses))


if __name__ == "__main__":
    sys.exit(main())
