"""Complete runs that take seconds: a tiny network on tiny images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from classifier_training.run.reader import Run
from classifier_training.training.api import train_with

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

# What draws or measures takes longer than a tiny run; tests that look at it ask for it.
UNDRAWN = (
    "callbacks.confusion_matrix=null",
    "callbacks.model_info=null",
    "callbacks.sample_visualization=null",
    "callbacks.training_history=null",
)


def undrawn(overrides: Sequence[str], drawn: bool) -> Sequence[str]:
    """Return the overrides that leave pictures out, unless they are wanted or there are none."""
    return () if drawn or "callbacks=none" in overrides else UNDRAWN


def tiny_train(data: Path, out: Path, *overrides: str, drawn: bool = False) -> Run:
    """Train on a written folder; later overrides win."""
    return train_with(
        [*TINY, *undrawn(overrides, drawn), f"data.data_root={data}", *overrides], out=out
    )
