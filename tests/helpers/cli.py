"""``python -m tests.helpers.cli train ...``: the command line, in a process that knows tiny."""

from __future__ import annotations

import sys

import torch

from classifier_training.cli.train import train
from tests.helpers.tiny import register

if __name__ == "__main__":
    torch.set_num_threads(1)
    register()
    sys.exit(train(sys.argv[2:]))
