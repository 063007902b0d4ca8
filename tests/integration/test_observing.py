"""Observers write what people look at, and whatever happens to them, training goes on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from loguru import logger
from PIL import Image

from classifier_training.callbacks.base import Callback
from classifier_training.errors import InterruptedRunError
from classifier_training.run.reader import Run
from tests.helpers.checkpoints import differences, read
from tests.helpers.data import class_image
from tests.helpers.failing import FailsAt
from tests.helpers.failing import use as use_failing
from tests.helpers.observers import Watch, use
from tests.helpers.runs import tiny_train
from tests.helpers.training import train_only

HOOKS_OF_A_RUN = [
    "setup", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start",
    "on_train_batch_end", "on_before_zero_grad", "on_after_backward", "on_before_optimizer_step",
    "on_validation_start", "on_validation_batch_end", "on_validation_epoch_end",
    "on_train_epoch_end", "on_train_end", "on_fit_end", "teardown",
    "on_epoch_recorded", "state_dict", "on_save_checkpoint",
]  # fmt: skip


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Whatever is logged, a text a message."""
    lines: list[str] = []
    sink = logger.add(
        lambda message: lines.append(str(message)), format="{level}|{message}", diagnose=False
    )
    yield lines
    logger.remove(sink)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24, 12, 4 and 1 training images; one class is missing from val."""
    root = tmp_path_factory.mktemp("uneven")
    for split, counts in {"train": (24, 12, 4, 1), "val": (4, 4, 4, 0)}.items():
        for position, count in enumerate(counts):
            folder = root / split / "abcd"[position]
            folder.mkdir(parents=True)
            for number in range(count):
                class_image(position, number + 1000 * (split == "val")).save(
                    folder / f"{number}.png"
                )
    return root


@pytest.mark.promise("R6")
def test_an_observer_that_fails_in_every_hook_changes_nothing(
    folder_data: Path, tmp_path: Path, log: list[str]
) -> None:
    plain = train_only(folder_data, tmp_path / "plain")
    log.clear()

    disturbed = train_only(folder_data, tmp_path / "disturbed", *use_failing("FailsEverywhere"))

    assert differences(read(plain.last)["state_dict"], read(disturbed.last)["state_dict"]) == []
    assert plain.history.read_text() == disturbed.history.read_text()
    said = [line for line in log if "FailsEverywhere" in line.partition("\n")[0]]
    assert len(said) == 1, "logged once"
    assert said[0].startswith("ERROR|FailsEverywhere failed in setup and is off")
    assert "No space left on device" in said[0], "with its reason"


@pytest.mark.promise("R6")
@pytest.mark.parametrize("hook", HOOKS_OF_A_RUN)
def test_an_observer_that_failed_is_off(
    hook: str, folder_data: Path, tmp_path: Path, log: list[str]
) -> None:
    folder = train_only(folder_data, tmp_path / "run", *use_failing("FailsAt", hook=hook))

    assert folder.history.read_text().count("\n") == 3, "both epochs, and the header"
    assert sum(f"FailsAt failed in {hook}" in line for line in log) == 1
    assert FailsAt.calls[hook] == 1
    after = dict(FailsAt.calls)
    if hook == "setup":
        assert after == {"setup": 1}


@pytest.mark.promise("R6")
@pytest.mark.parametrize(
    ("kind", "error"),
    [("InterruptedRunError", InterruptedRunError), ("KeyboardInterrupt", InterruptedRunError)],
)
def test_a_signal_passes_the_fence(
    kind: str, error: type[Exception], folder_data: Path, tmp_path: Path, log: list[str]
) -> None:
    given = use_failing("FailsAt", hook="on_train_batch_end", kind=kind)

    with pytest.raises(error):
        train_only(folder_data, tmp_path / "run", *given)

    assert not any("is off" in line for line in log)


@pytest.mark.promise("R6")
def test_an_observer_sees_no_sanity_check_and_one_process_only(
    folder_data: Path, tmp_path: Path
) -> None:
    train_only(
        folder_data, tmp_path / "run", "trainer.num_sanity_val_steps=2", "trainer.max_epochs=1",
        *use_failing("FailsAt", hook="none"),
    )  # fmt: skip
    assert FailsAt.calls["on_validation_start"] == 1
    assert FailsAt.calls["on_validation_batch_end"] == 3

    observer, trainer = FailsAt(hook="none"), pl.Trainer(logger=False, accelerator="cpu")
    module = pl.LightningModule()
    observer.on_train_start(trainer, module)
    trainer.strategy._local_rank = 1  # what a second process has
    type(trainer.strategy).is_global_zero = property(lambda self: False)  # type: ignore[assignment]
    try:
        observer.on_train_start(trainer, module)
    finally:
        type(trainer.strategy).is_global_zero = property(lambda self: True)  # type: ignore[assignment]
    assert FailsAt.calls["on_train_start"] == 1


@pytest.mark.promise("R6")
def test_a_subclass_of_an_observer_is_fenced_too(log: list[str]) -> None:
    class Base(Callback):
        def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            raise ValueError("base")

    class Derived(Base):
        def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            super().on_train_end(trainer, pl_module)

        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            raise ValueError("derived")

    trainer, module = pl.Trainer(logger=False, accelerator="cpu"), pl.LightningModule()
    derived = Derived()
    derived.on_train_end(trainer, module)
    derived.on_train_start(trainer, module)
    other = Derived()
    other.on_train_start(trainer, module)

    assert sum("Derived failed in on_train_end" in line for line in log) == 1
    assert sum("Derived failed in on_train_start" in line for line in log) == 1, "one each"


@pytest.fixture(scope="module")
def shown(uneven: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A whole run with a sampler, and its log.

    With this seed the class that is furthest off in standard deviations, in images and upwards is
    each time another one.
    """
    out = tmp_path_factory.mktemp("shown") / "run"
    run = tiny_train(uneven, out, "data.sampler=sqrt", "seed=59")
    return run, run.folder.log.read_text(encoding="utf-8")


def test_the_data_is_shown_and_drawn_when_training_starts(shown: tuple[Run, str]) -> None:
    run, log = shown

    content = json.loads(run.folder.statistics.read_text(encoding="utf-8"))
    assert content["splits"]["train"]["per_class"] == {"a": 24, "b": 12, "c": 4, "d": 1}
    assert "data: train: images 41, classes 4, per class 1..24, imbalance 24" in log
    assert "data: val: images 12, classes 3" in log
    assert "data: the rarest classes in train: 'd': 1, 'c': 4" in log
    with Image.open(run.folder.statistics_picture) as picture:
        assert picture.format == "PNG"


def _counts(run_folder: Path) -> list[dict[str, str]]:
    with (run_folder / "plots" / "sampler_distribution.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.promise("D11")
def test_drawn_counts_are_those_of_the_batches_that_were_trained_on(
    uneven: Path, tmp_path: Path
) -> None:
    folder = train_only(uneven, tmp_path / "run", "data.sampler=sqrt", *use("Watch"))

    labels = [batch.labels for batch in Watch.seen["batch"]]
    each = len(labels) // 2
    rows = _counts(folder.path)
    assert [row["class"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["images"] for row in rows] == ["24", "12", "4", "1"]
    for epoch in range(2):
        drawn = torch.cat(labels[epoch * each : (epoch + 1) * each]).bincount(minlength=4)
        assert [int(row[f"drawn_epoch_{epoch}"]) for row in rows] == drawn.tolist()
    # By hand: the draws are shared as the roots of the counts.
    roots = np.sqrt([24, 12, 4, 1])
    wanted = len(torch.cat(labels[:each])) * roots / roots.sum()
    assert [float(row["expected"]) for row in rows] == pytest.approx(wanted.tolist(), rel=1e-4)
    with Image.open(folder.plots / "sampler_distribution.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.promise("D11")
def test_expected_and_drawn_counts_are_shown(shown: tuple[Run, str]) -> None:
    run, log = shown
    rows = _counts(run.folder.path)

    for row in rows:
        first = f"{float(row['expected']):>7.1f} expected, {row['drawn_epoch_0']:>6} drawn"
        assert any(
            first in line and f"sampler: {row['class']} " in line for line in log.split("\n")
        )
    for epoch in range(2):
        expected = np.array([float(row["expected"]) for row in rows])
        drawn = np.array([float(row[f"drawn_epoch_{epoch}"]) for row in rows])
        share = expected / expected.sum()
        sigmas = (drawn - expected) / np.sqrt(drawn.sum() * share * (1 - share))
        worst = int(np.abs(sigmas).argmax())
        assert (
            f"sampler: epoch {epoch + 1}: largest deviation {rows[worst]['class']}: "
            f"{drawn[worst]:.0f} drawn, {expected[worst]:.1f} expected ({sigmas[worst]:+.1f} sigma)"
        ) in log


@pytest.mark.promise("D11")
@pytest.mark.promise("R1")
def test_a_run_cut_inside_an_epoch_has_the_same_counts(uneven: Path, tmp_path: Path) -> None:
    given = ("data.sampler=weighted", "trainer.max_epochs=3")
    whole = train_only(uneven, tmp_path / "whole", *given)
    kill = use("Kill", hook="batch_start", epoch=1, batch=2, marker=tmp_path / "killed")
    with pytest.raises(InterruptedRunError):
        train_only(uneven, tmp_path / "cut", *given, *kill)
    before = _counts(tmp_path / "cut")

    train_only(uneven, tmp_path / "cut", *given, *kill)

    assert "drawn_epoch_1" not in before[0]
    assert _counts(tmp_path / "cut") == _counts(whole.path)
    assert "drawn_epoch_2" in _counts(whole.path)[0]


@pytest.mark.promise("D11")
def test_a_limited_epoch_counts_what_it_trains_on(uneven: Path, tmp_path: Path) -> None:
    folder = train_only(
        uneven, tmp_path / "run", "data.sampler=weighted", "trainer.limit_train_batches=2",
        "trainer.max_epochs=1", *use("Watch"),
    )  # fmt: skip

    drawn = torch.cat([batch.labels for batch in Watch.seen["batch"]]).bincount(minlength=4)
    rows = _counts(folder.path)
    assert [int(row["drawn_epoch_0"]) for row in rows] == drawn.tolist()
    assert sum(drawn) == 16
    assert [float(row["expected"]) for row in rows] == [4, 4, 4, 4]


def test_without_a_sampler_there_is_nothing_to_compare(uneven: Path, tmp_path: Path) -> None:
    folder = train_only(uneven, tmp_path / "run")

    assert not list(folder.plots.glob("sampler_distribution.*"))


@pytest.mark.parametrize("off", ["callbacks=none", "one"])
def test_observers_can_be_switched_off(off: str, uneven: Path, tmp_path: Path) -> None:
    one = ("callbacks.sampler_distribution=null", "callbacks.dataset_statistics=null")
    given = (off,) if off != "one" else one

    run = tiny_train(uneven, tmp_path / "run", "data.sampler=sqrt", "trainer.max_epochs=1", *given)

    assert not list(run.folder.plots.glob("sampler_distribution.*"))
    assert off == "one" or not run.folder.plots.exists()
    assert not run.folder.statistics_picture.exists()
    assert run.folder.statistics.exists(), "the record is the run's own"
    assert "sampler: " not in run.folder.log.read_text(encoding="utf-8")


@pytest.mark.promise("R6")
def test_a_folder_that_cannot_be_written_does_not_stop_training(
    uneven: Path, tmp_path: Path, log: list[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plots").write_text("a file where a folder should be")

    folder = train_only(uneven, tmp_path / "run", "data.sampler=sqrt")

    assert folder.history.read_text().count("\n") == 3
    assert sum("SamplerDistribution failed in on_train_epoch_end" in line for line in log) == 1
