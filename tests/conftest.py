"""Data and runs that tests share. They are made here: no test needs a network or a file."""

from __future__ import annotations

import os

# Of processes that tests start, and of their loaders: two threads each only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loguru import logger

from classifier_training.run.reader import Run
from tests.helpers.data import write_folder
from tests.helpers.runs import tiny_train
from tests.helpers.tiny import register


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch of ``make golden-update``."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files")


@pytest.fixture(scope="session", autouse=True)
def _tiny_backbone() -> None:
    # Threads cost more than they bring on tiny images, and several times that on a busy machine.
    torch.set_num_threads(1)
    register()


@pytest.fixture(autouse=True)
def _log_to_nowhere_afterwards() -> Iterator[None]:
    """Commands run in-process leave loguru on the stream that pytest closes after the test."""
    yield
    logger.remove()


@pytest.fixture(scope="session")
def folder_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class with train, val and test. Do not write into it."""
    return write_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="session")
def tiny_run(folder_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two epochs with EMA. Do not write into it: copy it."""
    return tiny_train(folder_data, tmp_path_factory.mktemp("run") / "run")
