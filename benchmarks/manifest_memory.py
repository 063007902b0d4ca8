"""Memory of loader processes with a large manifest, and over epochs.

    python -m benchmarks.manifest_memory [--rows 1000000] [--workers 2] [--batches 200]

Real forked workers draw at random from a manifest whose rows share a few images, and their memory
is read from /proc/PID/smaps_rollup: PSS (private pages, and their part of the shared ones) and its
private part. If reading rows copied them page by page, as counting references to them would, both
would grow with the rows drawn: they may not grow by 40 MB. The part of the manifest's own pages
that a worker's PSS counts is told apart: it is there once, however many workers share it.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from classifier_training.data.dataset import TrainingDataset, unwrap
from classifier_training.data.loading import shared_heap, training_loader
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import Record
from classifier_training.data.sampling import EpochBatchSampler
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.preprocess import PreprocessSpec

SPEC = PreprocessSpec(32, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGES = 16
_BATCH = 32


def manifest_of(root: Path, rows: int) -> Manifest:
    """Return a table of ``rows`` images, of which only a few differ."""
    encoded = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(encoded, "PNG")
    for at in range(_IMAGES):
        (root / f"image-{at:02d}.png").write_bytes(encoded.getvalue())
    records = [
        # Paths of a usual length that are all distinct to the table, by way of "./".
        Record(f"{'./' * (at // _IMAGES % 20)}image-{at % _IMAGES:02d}.png", "ab"[at % 2],
               "train", f"annotations-{at % 7}.jsonl", at, f'{{"color": "red", "match": {at}}}')
        for at in range(rows)
    ]  # fmt: skip
    hashes = np.random.default_rng(0).bytes(16 * rows)
    return Manifest._from_rows(records, ClassMap(("a", "b")), root, hashes)


class Memory(NamedTuple):
    """Of a process, in MB (10^6 bytes).

    Attributes:
        pss: Private pages, and the process's part of those it shares.
        private: Pages of its own.
    """

    pss: float
    private: float


def worker_memory(manifest: Manifest, *, workers: int, batches: int, every: int) -> list[Memory]:
    """Return the mean memory of a worker after every so many batches.

    Args:
        manifest: Images of the training split.
        workers: Forked processes.
        batches: How many are drawn; an epoch is begun anew when it ends.
        every: How often memory is read.
    """
    sampler = EpochBatchSampler(manifest.rows("train"), batch_size=_BATCH, seed=0)
    dataset = TrainingDataset(manifest, SPEC, None, 0)
    found: list[Memory] = []
    drawn = 0
    with shared_heap(workers):
        loader = training_loader(dataset, sampler, workers=workers, prefetch=2, pin_memory=False)
        while drawn < batches:
            sampler.set_epoch(drawn)
            iterator = iter(loader)
            for batch in iterator:
                unwrap(batch)
                drawn += 1
                if drawn % every == 0:
                    pids = [worker.pid for worker in iterator._workers]  # type: ignore[attr-defined]
                    seen = [process_memory(pid) for pid in pids]
                    found.append(Memory(*map(statistics.mean, zip(*seen, strict=True))))
                if drawn == batches:
                    break
    return found


def process_memory(pid: int) -> Memory:
    """Read what the kernel counts for a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    size = {
        key: int(rest.split()[0]) * 1024 / 1e6 for key, rest in (line.split(":") for line in lines)
    }
    return Memory(size["Pss"], size["Private_Clean"] + size["Private_Dirty"])


def measure(rows: int, *, workers: int, batches: int) -> list[Memory]:
    """Return the memory of a worker, early and late, with a manifest of so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = manifest_of(Path(folder), rows)
        return worker_memory(manifest, workers=workers, batches=batches, every=batches // 10)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=1000)
    arguments = parser.parse_args()
    for rows in (10 * _BATCH, arguments.rows):
        memory = measure(rows, workers=arguments.workers, batches=arguments.batches)
        first, last = memory[0], memory[-1]
        print(
            f"{rows:>9,} rows: a worker's PSS {last.pss:.1f} MB, of which private "
            f"{last.private:.1f} MB; growth over {arguments.batches:,} batches "
            f"{last.pss - first.pss:+.1f} MB, private {last.private - first.private:+.1f} MB"
        )


if __name__ == "__main__":
    main()
