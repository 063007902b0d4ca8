"""How many planted label errors `suspects` finds: on digits, and on rendered jersey numbers.

    python -m benchmarks.label_noise [--demo symmetric pairs] [--share 0.05 0.10] [--epochs 8]

Digits (scikit-learn's, 1,797 of 8x8 pixels) take seconds: neighbours on the pixels, and a logistic
regression cross-validated in five folds. --demo renders 12 classes of jersey numbers with wrong
labels in all splits, trains `train_demo` on them (minutes each) and asks `classifier suspects`.

k is the number planted. P@k: share of the first k listed that are wrong; precision and recall:
of those that confident learning takes; noise: what it estimates for all classes together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from loguru import logger
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from tests.helpers.label_noise import DIGIT_PAIRS, plant

from classifier_training.evaluation.confident_learning import Suspicion, judge, leave_one_out
from classifier_training.evaluation.label_errors import find_label_errors
from classifier_training.synthetic.writer import DEFAULT_CLASSES, SynthSpec, write_dataset
from classifier_training.training.api import train_with

ROW = "{:<14} {:<10} {:>6} {:<12} {:>5} {:>6} {:>9} {:>10} {:>7} {:>7}"
KINDS = ("symmetric", "pairs")


@dataclass(frozen=True)
class Case:
    """What was planted where, and who looks for it."""

    data: str
    kind: str
    share: float
    evidence: str

    def show(self, found: Suspicion, wrong: npt.NDArray[np.bool_]) -> None:
        """Print a row of the table."""
        planted = int(wrong.sum())
        taken = found.is_suspect
        hits = int((wrong & taken).sum())
        off = found.counts.sum() - np.trace(found.counts)
        print(
            ROW.format(
                self.data,
                self.kind,
                f"{self.share:.0%}",
                self.evidence,
                planted,
                f"{wrong[found.ranking()[:planted]].mean():.3f}",
                int(taken.sum()),
                f"{hits / max(1, taken.sum()):.3f}",
                f"{hits / planted:.3f}",
                f"{off / found.counts.sum():.3f}",
            ),
            flush=True,
        )


def digits(kind: str, share: float, seed: int) -> None:
    """Plant noise in the digits and look for it in two ways."""
    pixels, true = load_digits(return_X_y=True)
    pixels, true = pixels.astype(np.float32) / 16, true.astype(np.int64)
    given = plant(true, share, seed=seed, pairs=DIGIT_PAIRS if kind == "pairs" else None)
    alone = np.zeros((len(true), 1), dtype=np.int64)
    nearest, _ = leave_one_out(pixels, given, alone, 10)
    Case("digits", kind, share, "neighbours").show(judge(given, nearest), given != true)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=0.02, max_iter=500)
    linear = cross_val_predict(model, pixels, given, cv=folds, method="predict_proba")
    Case("digits", kind, share, "out-of-fold").show(judge(given, linear), given != true)


def demo(kind: str, share: float, seed: int, *, epochs: int, root: Path) -> None:
    """Render jersey numbers, plant noise in all splits, train, and ask `suspects`."""
    spec = SynthSpec(
        classes=DEFAULT_CLASSES[:12],
        train_per_class=200,
        val_per_class=30,
        test_per_class=30,
        imbalance=1.0,
        image_size=80,
        difficulty=0.5,
        seed=0,
    )
    write_dataset(root / "data", spec, lambda _done, _total: None)
    true = relabel(root / "data", kind, share, seed)
    run = train_with(
        [f"data.data_root={root / 'data'}", f"trainer.max_epochs={epochs}"],
        root="train_demo",
        out=root / "run",
    )
    errors = find_label_errors([run.folder.path])
    manifest = errors.manifest
    names = manifest.class_map.names
    paths = [manifest.paths[int(row)] for row in errors.rows]
    given = [names[manifest.labels[int(row)]] for row in errors.rows]
    wrong = np.array([true[path] != label for path, label in zip(paths, given, strict=True)])
    Case("jersey numbers", kind, share, "a run").show(errors.suspicion, wrong)


def relabel(root: Path, kind: str, share: float, seed: int) -> dict[str, str]:
    """Plant noise in the JSONL files of a rendered set; returns the true label of each path."""
    files = sorted(root.glob("*/annotations.jsonl"))
    rows = [(file, json.loads(line)) for file in files for line in file.read_text().splitlines()]
    names = sorted({row["suffix"] for _, row in rows})
    true = np.array([names.index(row["suffix"]) for _, row in rows])
    pairs = {index: names.index(_nearest(name, names)) for index, name in enumerate(names)}
    given = plant(true, share, seed=seed, pairs=pairs if kind == "pairs" else None)
    for file in files:
        lines = [
            json.dumps({**row, "suffix": names[label]})
            for (place, row), label in zip(rows, given, strict=True)
            if place == file
        ]
        file.write_text("\n".join(lines) + "\n")
    return {
        f"{place.parent.name}/{row['image']}": names[label]
        for (place, row), label in zip(rows, true, strict=True)
    }


def _nearest(name: str, names: list[str]) -> str:
    """Return the number that differs in the fewest digits."""

    def distance(other: str) -> int:
        return sum(a != b for a, b in zip(name.rjust(2), other.rjust(2), strict=True))

    return min((other for other in names if other != name), key=distance)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, nargs="+", default=[0.05, 0.10])
    parser.add_argument("--demo", nargs="*", choices=KINDS, default=[])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logger.remove()
    print(
        ROW.format(
            "data", "noise", "share", "evidence", "k", "P@k", "suspects", "precision", "recall",
            "noise",
        )
    )  # fmt: skip
    for kind in KINDS:
        for share in arguments.share:
            digits(kind, share, arguments.seed)
    for kind in arguments.demo:
        for share in arguments.share:
            with tempfile.TemporaryDirectory() as folder:
                demo(kind, share, arguments.seed, epochs=arguments.epochs, root=Path(folder))


if __name__ == "__main__":
    main()
