"""Synthetic basketball jerseys: data for the demo and the tests, made from a seed."""

from __future__ import annotations

from classifier_training.synthetic.jersey import JerseyLook
from classifier_training.synthetic.render import render_crop
from classifier_training.synthetic.writer import (
    DEFAULT_CLASSES,
    SynthSpec,
    class_counts,
    write_dataset,
)

__all__ = [
    "DEFAULT_CLASSES",
    "JerseyLook",
    "SynthSpec",
    "class_counts",
    "render_crop",
    "write_dataset",
]
