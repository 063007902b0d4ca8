"""Runs whose reports are hard to lay out or to read."""

from __future__ import annotations

import json
from pathlib import Path

from classifier_training.run.reader import Run
from tests.helpers.data import class_image
from tests.helpers.runs import tiny_train

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "</script><script>document.title='owned'</script>",
    "=cmd|' /C calc'!A0",
    'say "hi", twice',
    "&lt;b&gt; {{ 7 * 7 }} {% raw %}",
    "عربي مع عدد 12",
    "\u202eturned around",
    "日本語のラベル",
    "line\nbreak",
    "x" * 200,
    "0",
    "00",
)


def named_run(base: Path, names: tuple[str, ...], *overrides: str) -> Run:
    """Train a tiny network for an epoch or so on images of classes with these names."""
    root = base / "images"
    for split, count in {"train": 4, "val": 3, "test": 3}.items():
        lines = []
        for position, name in enumerate(names):
            for number in range(count):
                path = root / split / f"{position}-{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                seed = 10_000 * len(split) + 100 * position + number
                class_image(position, seed, (24, 20)).save(path)
                lines.append(json.dumps({"image": path.name, "suffix": name}))
        (root / split / "annotations.jsonl").write_text("\n".join(lines))
    return tiny_train(
        root, base / "run", "data=jsonl", "trainer.max_epochs=2", "data.check=labels", *overrides
    )
