"""Checking all images against decoding them alone, and planted faults on real photographs.

    python -m benchmarks.data_check DATA [--rounds 3] [--workers 2] [--faults]

DATA is a folder per split and class. In each round the images are decoded alone, by Pillow and by
what training decodes with, and checked (from listing the files to the last finding), one after the
other; the ratios are those of the fastest rounds. --faults instead copies DATA to a temporary
folder, clean and with planted faults, and tells which were found.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from loguru import logger
from tests.helpers.planted_faults import OVERRIDES, plant_faults

from classifier_training.config.compose import compose_config, make_strict
from classifier_training.config.schema import DataConfig
from classifier_training.config.validate import validate
from classifier_training.data.checks.findings import describe_item
from classifier_training.data.checks.preflight import find_facts
from classifier_training.data.checks.run import check_data
from classifier_training.data.decoding import decode_pixels
from classifier_training.data.index import index_data
from classifier_training.inference.images import read_image
from classifier_training.system.parallel import map_parts


def main() -> None:
    """Measure, or plant and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--faults", action="store_true")
    arguments = parser.parse_args()
    logger.remove()
    if arguments.faults:
        _find_faults(arguments.data)
    else:
        _measure(arguments.data, arguments.rounds, arguments.workers)


def _measure(data: Path, rounds: int, workers: int) -> None:
    config = _config(f"data.data_root={data}", f"data.num_workers={workers}")
    manifest = index_data(config).manifest
    pillow, fastest, checked = [], [], []
    for _ in range(rounds):
        for decode, times in ((_decode_by_pillow, pillow), (_decode_as_training, fastest)):
            started = time.perf_counter()
            paths = (str(manifest.file(row)) for row in range(len(manifest)))
            for _part in map_parts(decode, paths, len(manifest), workers=workers):
                pass
            times.append(time.perf_counter() - started)
        started = time.perf_counter()
        found = index_data(config).manifest
        indexed = time.perf_counter() - started
        findings = check_data(found, find_facts(found, config, None), config)
        checked.append(time.perf_counter() - started)
        print(
            f"decode by Pillow {pillow[-1]:.2f} s, as training {fastest[-1]:.2f} s; check "
            f"{checked[-1]:.2f} s (of it listing and hashing {indexed:.2f} s), "
            f"{len(findings)} findings",
            flush=True,
        )
    print(
        f"{len(manifest):,} images, {workers} processes: check / decode = "
        f"{min(checked) / min(pillow):.2f} of Pillow's time, "
        f"{min(checked) / min(fastest):.2f} of training's"
    )


def _decode_by_pillow(paths: list[str]) -> int:
    for path in paths:
        read_image(Path(path))
    return len(paths)


def _decode_as_training(paths: list[str]) -> int:
    for path in paths:
        decode_pixels(Path(path).read_bytes(), path, None)
    return len(paths)


def _find_faults(data: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for name, kinds in (("clean", ()), ("faulty", None)):
            planted = plant_faults(data, Path(scratch) / name, seed=0, kinds=kinds)
            config = _config(*OVERRIDES, f"data.data_root={Path(scratch) / name}")
            faults: list[str] = []
            manifest = index_data(config, tolerated=faults).manifest
            findings = check_data(manifest, find_facts(manifest, config, None), config)
            texts = {
                finding.code: [describe_item(item, manifest) for item in finding.items]
                for finding in findings
            }
            texts["faulty-row"] = faults
            for finding in findings:
                print(f"{name}: {finding.severity} {finding.code}: {finding.message}")
            missed = [
                fault.kind
                for fault in planted
                if not any(
                    all(needle in text for needle in fault.needles)
                    for text in texts.get(fault.code, ())
                )
            ]
            print(
                f"{name}: {len(planted) - len(missed)} of {len(planted)} planted kinds found"
                + (f"; missed: {', '.join(missed)}" if missed else "")
            )


def _config(*overrides: str) -> DataConfig:
    return validate(compose_config(make_strict(list(overrides))), allow_modules=[]).data


if __name__ == "__main__":
    main()
