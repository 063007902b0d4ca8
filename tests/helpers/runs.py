"""Complete runs that take seconds: a tiny network on tiny images."""

from __future__ import annotations

from pathlib import Path

from classifier_training.artifacts.run_folder import Run
from classifier_training.training.fit import train

TINY = (
    "model.name=tiny",
    "model.weights=null",
    "transforms.image_size=32",
    "data.batch_size=8",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.precision=32-true",
    "optimizer.learning_rate=0.01",
    "checkpoint.save_top_k=1",
    "explain.enabled=false",
)


def tiny_train(data: Path, out: Path, *overrides: str) -> Run:
    """Train on a written folder; later overrides win."""
    return train([*TINY, f"data.data_root={data}", *overrides], out=out)
