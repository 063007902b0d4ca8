"""A run that was interrupted ends bit by bit where the uninterrupted one does."""

from __future__ import annotations

import io
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from loguru import logger

from classifier_training.errors import ConfigError, InterruptedRunError, ResumeError
from classifier_training.run.checkpoint import scored_state, unpack_metadata
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import read_history
from classifier_training.run.reader import Run
from tests.helpers.checkpoints import differences, read, training_state
from tests.helpers.data import CLASSES, write_folder
from tests.helpers.observers import Watch, use
from tests.helpers.runs import tiny_train
from tests.helpers.tiny import TinyNet
from tests.helpers.training import train_only

_THREE = ("trainer.max_epochs=3",)


@dataclass(frozen=True)
class Cut:
    """Where a signal arrives, and at which optimiser step the run must then be saved."""

    name: str
    hook: str
    epoch: int
    batch: int
    saved_at: int
    overrides: tuple[str, ...] = ()
    number: int = signal.SIGTERM


# Six batches an epoch; with accumulation of two, three steps.
_ACCUMULATE = ("trainer.accumulate_grad_batches=2",)
_CUTS = [
    Cut("before a batch", "batch_start", 1, 2, 9),
    Cut("in backward", "backward", 1, 3, 10),
    Cut("after the first batch", "batch_end", 0, 0, 1),
    Cut("before the last batch", "batch_start", 1, 5, 12),
    Cut("after the last batch", "batch_end", 1, 5, 12),
    Cut("in validation", "validation", 1, 1, 12),
    Cut("in the last validation", "validation", 2, 1, 18),
    Cut("at an epoch's end", "epoch_end", 0, 0, 6),
    Cut("by Ctrl-C", "batch_start", 1, 2, 9, number=signal.SIGINT),
    Cut("inside an accumulation window", "batch_start", 1, 2, 5, _ACCUMULATE),
    Cut("at the end of a window", "batch_end", 1, 1, 4, _ACCUMULATE),
    Cut(
        "inside a partial window",
        "batch_start",
        1,
        4,
        4,
        ("trainer.accumulate_grad_batches=4",),
    ),
    Cut("with worker processes", "batch_start", 1, 2, 9, ("data.num_workers=2",)),
    Cut("between epochs, workers", "validation", 0, 1, 6, ("data.num_workers=2",)),
    Cut("with a weighted sampler", "batch_start", 1, 2, 9, ("data.sampler=weighted",)),
    Cut("with part of the batches", "batch_start", 1, 1, 6, ("trainer.limit_train_batches=4",)),
    Cut("without EMA", "batch_start", 1, 2, 9, ("ema.enabled=false",)),
    Cut("in bf16", "batch_start", 1, 2, 9, ("trainer.precision=bf16-mixed",)),
    Cut("with dropout", "batch_start", 1, 2, 9, ("model.name=dropout",)),
    Cut(
        "while early stopping counts",
        "batch_start",
        2,
        3,
        16,
        ("callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=0.9"),
    ),
]


@pytest.fixture(scope="module")
def whole(folder_data: Path, tmp_path_factory: pytest.TempPathFactory) -> _Whole:
    return _Whole(folder_data, tmp_path_factory.mktemp("whole"))


class _Whole:
    """Uninterrupted runs, each made once."""

    def __init__(self, data: Path, folder: Path) -> None:
        self._data = data
        self._folder = folder
        self._runs: dict[tuple[str, ...], RunFolder] = {}

    def run(self, *overrides: str) -> RunFolder:
        if overrides not in self._runs:
            out = self._folder / str(len(self._runs))
            self._runs[overrides] = train_only(self._data, out, *_THREE, *overrides)
        return self._runs[overrides]


def _same(folder: RunFolder, whole: RunFolder) -> None:
    assert differences(training_state(folder.last), training_state(whole.last)) == []
    assert differences(training_state(folder.best), training_state(whole.best)) == []
    assert folder.history.read_text() == whole.history.read_text()


@pytest.mark.promise("R1")
@pytest.mark.promise("R3")
@pytest.mark.promise("R7")
@pytest.mark.promise("T2")
@pytest.mark.promise("T3")
@pytest.mark.parametrize("cut", _CUTS, ids=lambda cut: cut.name)
def test_interrupted_is_uninterrupted(
    cut: Cut, whole: _Whole, folder_data: Path, tmp_path: Path
) -> None:
    kill = use(
        "Kill",
        hook=cut.hook,
        epoch=cut.epoch,
        batch=cut.batch,
        number=int(cut.number),
        marker=tmp_path / "killed",
    )
    command = [*_THREE, *cut.overrides, *kill]

    with pytest.raises(InterruptedRunError) as stopped:
        train_only(folder_data, tmp_path / "run", *command)
    saved = read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]
    folder = train_only(folder_data, tmp_path / "run", *command)

    assert stopped.value.exit_code == (143 if cut.number == signal.SIGTERM else 130)
    assert saved == cut.saved_at
    _same(folder, whole.run(*cut.overrides))


@pytest.mark.promise("R1")
def test_interrupted_at_every_epoch(whole: _Whole, folder_data: Path, tmp_path: Path) -> None:
    """Each part of the run is a new process to the state: nothing may drift."""
    kills: list[str] = []
    for epoch, batch in ((0, 1), (0, 3), (1, 0), (2, 4)):
        marker = tmp_path / f"{epoch}-{batch}"
        kills = use("Kill", hook="batch_start", epoch=epoch, batch=batch, marker=marker)
        with pytest.raises(InterruptedRunError):
            train_only(folder_data, tmp_path / "run", *_THREE, *kills)

    folder = train_only(folder_data, tmp_path / "run", *_THREE)

    _same(folder, whole.run())


@pytest.mark.promise("R1")
@pytest.mark.promise("R3")
@pytest.mark.promise("R7")
def test_same_command_goes_on_to_the_end(whole: _Whole, folder_data: Path, tmp_path: Path) -> None:
    kill = use("Kill", hook="batch_start", epoch=1, batch=2, marker=tmp_path / "killed")
    command = (folder_data, tmp_path / "run", *_THREE, *kill)
    with pytest.raises(InterruptedRunError, match="resume with"):
        tiny_train(*command)
    status = Run(tmp_path / "run").record["status"]

    run = tiny_train(*command)

    assert status == "interrupted"
    assert run.record["status"] == "finished"
    assert run.folder.onnx.exists()
    _same(run.folder, whole.run())


@pytest.mark.promise("R3")
def test_second_ctrl_c_stops_at_once(whole: _Whole, folder_data: Path, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    number = int(signal.SIGINT)
    kill = use("Kill", hook="batch_start", epoch=1, batch=2, number=number, times=2, marker=marker)
    handler = signal.getsignal(signal.SIGINT)

    with pytest.raises(InterruptedRunError) as stopped:
        train_only(folder_data, tmp_path / "run", *_THREE, *kill)
    saved = read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]
    folder = train_only(folder_data, tmp_path / "run", *_THREE, *kill)

    assert stopped.value.exit_code == 130
    assert saved == 6, "the last whole epoch"
    assert signal.getsignal(signal.SIGINT) is handler
    _same(folder, whole.run())


@pytest.mark.promise("R3")
def test_sigterm_before_the_first_step(whole: _Whole, folder_data: Path, tmp_path: Path) -> None:
    kill = use("Kill", hook="train_start", epoch=0, marker=tmp_path / "killed")
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(InterruptedRunError) as stopped:
            train_only(folder_data, tmp_path / "run", *_THREE, *kill)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert stopped.value.exit_code == 143
    _same(train_only(folder_data, tmp_path / "run", *_THREE, *kill), whole.run())


@pytest.mark.promise("R3")
def test_handlers_of_the_caller_come_back(folder_data: Path, tmp_path: Path) -> None:
    def handler(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, handler)
    try:
        train_only(folder_data, tmp_path / "run", "trainer.max_epochs=1")
        after = signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert after is handler


@pytest.mark.promise("R3")
def test_trains_outside_the_main_thread(whole: _Whole, folder_data: Path, tmp_path: Path) -> None:
    """Python allows signal handlers in the main thread alone."""
    with ThreadPoolExecutor(1) as pool:
        folder = pool.submit(train_only, folder_data, tmp_path / "run", *_THREE).result()

    _same(folder, whole.run())


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.promise("C7")
@pytest.mark.parametrize("terminal", [True, False], ids=["bar", "lines"])
def test_progress_goes_on_inside_an_epoch(
    terminal: bool, folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning does not announce an epoch that was begun by an earlier part of the run."""
    kill = use("Kill", hook="batch_start", epoch=1, batch=2, marker=tmp_path / "killed")
    command = (*_THREE, "callbacks.progress.line_every_s=0.0", *kill)
    with pytest.raises(InterruptedRunError):
        train_only(folder_data, tmp_path / "run", *command)
    if terminal:
        monkeypatch.setattr("sys.stderr", _Terminal())
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")

    train_only(folder_data, tmp_path / "run", *command)

    logger.remove(sink)
    speeds = [int(found) for line in lines for found in re.findall(r"(\d+) img/s", line)]
    assert len(speeds) >= 2
    assert min(speeds) > 0, "measured from the start of this part of the run"


@pytest.mark.promise("R7")
def test_history_lost_after_the_last_epoch_is_rewritten(
    whole: _Whole, folder_data: Path, tmp_path: Path
) -> None:
    """A kill between the last checkpoint and metrics.csv leaves nothing to train."""
    shutil.copytree(whole.run().path, tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").unlink()

    _same(train_only(folder_data, tmp_path / "run", *_THREE), whole.run())


@pytest.mark.promise("R5")
@pytest.mark.parametrize("monitor", ["val/loss", "val/f1_macro"])
def test_last_is_last_and_best_is_best(monitor: str, folder_data: Path, tmp_path: Path) -> None:
    """Also when the run was interrupted and its folder moved in between."""
    kill = use("Kill", hook="batch_start", epoch=2, batch=2, marker=tmp_path / "killed")
    command = (f"checkpoint.monitor={monitor}", "trainer.max_epochs=4", *kill)
    with pytest.raises(InterruptedRunError):
        train_only(folder_data, tmp_path / "here", *command)
    shutil.move(tmp_path / "here", tmp_path / "there")

    folder = train_only(folder_data, tmp_path / "there", *command)

    scores = [row[monitor] for row in read_history(folder.history)]
    wanted = min(scores) if monitor == "val/loss" else max(scores)
    assert read(folder.last)["epoch"] == 3
    assert read(folder.best)["epoch"] == scores.index(wanted)
    assert not (tmp_path / "here").exists()
    kept = sorted(path.name for path in folder.checkpoints.iterdir())
    epoch = f"epoch={scores.index(wanted):04d}.ckpt"
    assert kept == sorted(["best.ckpt", epoch, "last.ckpt", "manifest.json"])


@pytest.mark.promise("R5")
def test_best_survives_worse_epochs_after_a_move(tmp_path: Path) -> None:
    """Validation labels are wrong, so that the first epoch stays best, wherever the folder lies."""
    data = write_folder(tmp_path / "data")
    one, other = (data / "val" / name for name in CLASSES[:2])
    one.rename(data / "val" / "swapped")
    other.rename(one)
    (data / "val" / "swapped").rename(other)
    monitor = ("checkpoint.monitor=val/loss", *_THREE)
    kill = use("Kill", hook="batch_start", epoch=1, batch=2, marker=tmp_path / "killed")
    with pytest.raises(InterruptedRunError):
        train_only(data, tmp_path / "run", *monitor, *kill)
    best = read(tmp_path / "run" / "checkpoints" / "best.ckpt")
    shutil.move(tmp_path / "run", tmp_path / "moved")

    folder = train_only(data, tmp_path / "moved", *monitor, *kill)

    losses = [row["val/loss"] for row in read_history(folder.history)]
    assert losses == sorted(losses), "the test needs a loss that rises"
    assert differences(read(folder.best)["state_dict"], best["state_dict"]) == []
    assert read(folder.last)["epoch"] == 2


@pytest.mark.promise("R4")
def test_finished_run_does_nothing(tiny_run: Run, folder_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.folder.path, tmp_path / "run")
    before = _files(tmp_path / "run")

    again = tiny_train(folder_data, tmp_path / "run")

    assert again.record == tiny_run.record
    assert _files(tmp_path / "run") == before


@pytest.mark.promise("R1")
@pytest.mark.promise("T4")
def test_longer_run_goes_on_with_its_new_schedule(
    tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    """Stored is a schedule that has ended; the steps to come must follow the longer one."""
    shutil.copytree(tiny_run.folder.path, tmp_path / "run")
    watch = use("Watch")
    run = tiny_train(folder_data, tmp_path / "run", "trainer.max_epochs=4")
    longer = train_only(folder_data, tmp_path / "other", "trainer.max_epochs=4", *watch)

    assert "trainer.max_epochs: 2 -> 4" in run.record["changes"]
    assert run.record["id"] == tiny_run.record["id"]
    rows = read_history(run.folder.history)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    # The rate that a run of four epochs from the start has at the same steps.
    assert [row["lr"] for row in rows[2:]] == [
        row["lr"] for row in read_history(longer.history)[2:]
    ]
    assert len(Watch.seen["lr"]) == 24


@pytest.mark.promise("T4")
def test_longer_run_has_the_right_rate_from_its_first_step(
    whole: _Whole, folder_data: Path, tmp_path: Path
) -> None:
    watch = use("Watch")
    shutil.copytree(whole.run().path, tmp_path / "run")
    train_only(folder_data, tmp_path / "long", "trainer.max_epochs=6", *watch)
    from_the_start = Watch.seen["lr"][18:]

    train_only(folder_data, tmp_path / "run", "trainer.max_epochs=6", *watch)

    assert Watch.seen["lr"] == from_the_start


@pytest.mark.promise("R1")
def test_checkpoint_elsewhere_is_the_same_run_going_on(
    whole: _Whole, folder_data: Path, tmp_path: Path
) -> None:
    kill = use("Kill", hook="batch_start", epoch=1, batch=2, marker=tmp_path / "killed")
    with pytest.raises(InterruptedRunError):
        train_only(folder_data, tmp_path / "parent", *_THREE, *kill)
    parent = tmp_path / "parent" / "checkpoints" / "last.ckpt"

    run = tiny_train(folder_data, tmp_path / "child", *_THREE, f"ckpt_path={parent}")

    assert run.record["parent"] == str(parent)
    assert run.best_score == max(row["val/f1_macro"] for row in read_history(run.folder.history))
    # Which files of the parent may be pruned is no business of the child.
    child, alone = (training_state(folder.last) for folder in (run.folder, whole.run()))
    for state in (child, alone):
        del state["callbacks"]["RunCheckpoint"]["kept"]
    assert differences(child, alone) == []
    assert run.folder.history.read_text() == whole.run().history.read_text()


@pytest.mark.promise("R5")
def test_best_of_another_moment_is_not_taken_over(
    whole: _Whole, folder_data: Path, tmp_path: Path
) -> None:
    """The parent got better after the checkpoint that the child starts from."""
    parent = tmp_path / "parent" / "checkpoints"
    keep_all = ("checkpoint.save_top_k=3", "checkpoint.monitor=val/loss", *_THREE)
    train_only(folder_data, tmp_path / "parent", *keep_all)
    early = parent / "epoch=0000.ckpt"
    assert read(parent / "best.ckpt")["epoch"] > 0, "the test needs a later best"

    # Its own training ends at once in ruin, so that the best remains that of the start.
    child = train_only(
        folder_data,
        tmp_path / "child",
        "checkpoint.monitor=val/loss",
        "trainer.max_epochs=2",
        "ema.enabled=true",
        "optimizer.learning_rate=30.0",
        f'ckpt_path="{early}"',
    )

    losses = [row["val/loss"] for row in read_history(child.history)]
    assert losses[0] < losses[1], "the test needs a second epoch that is worse"
    weights = read(early)["state_dict"]
    assert differences(read(child.best)["state_dict"], weights) == []


@pytest.mark.promise("R4")
def test_checkpoint_elsewhere_goes_on_with_the_rates_that_were_asked_for(
    whole: _Whole, folder_data: Path, tmp_path: Path
) -> None:
    """A checkpoint brings its own learning rate and decay; the command line must win."""
    asked = ("optimizer.learning_rate=0.002", "optimizer.weight_decay=0.25")

    child = train_only(
        folder_data,
        tmp_path / "child",
        "trainer.max_epochs=5",
        "schedule.final_lr_ratio=1.0",
        *asked,
        f"ckpt_path={whole.run().last}",
        *use("Watch"),
    )

    assert Watch.seen["lr"] == [[0.002] * 4] * 12
    groups = read(child.last)["optimizer_states"][0]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.25, 0.0}


@pytest.mark.promise("R5")
def test_finished_parent_gives_a_whole_child(
    whole: _Whole, folder_data: Path, tmp_path: Path
) -> None:
    """Nothing is left to train: the child still has last, best and its curves."""
    child = train_only(folder_data, tmp_path / "child", *_THREE, f"ckpt_path={whole.run().last}")

    _same(child, whole.run())


@pytest.mark.promise("R5")
def test_finished_parent_without_its_best_is_refused(
    whole: _Whole, folder_data: Path, tmp_path: Path
) -> None:
    lonely = tmp_path / "only.ckpt"
    shutil.copy(whole.run().last, lonely)
    if read(lonely)["callbacks"]["RunCheckpoint"]["best_epoch"] == 2:
        pytest.fail("the test needs a last epoch that is not the best")

    with pytest.raises(ResumeError, match="missing"):
        train_only(folder_data, tmp_path / "child", *_THREE, f"ckpt_path={lonely}")


@pytest.mark.promise("R2")
def test_damaged_last_falls_back_to_the_newest_whole(
    whole: _Whole, folder_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole.run().path, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])

    folder = train_only(folder_data, tmp_path / "run", *_THREE)

    _same(folder, whole.run())


@pytest.mark.promise("R4")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("transforms.image_size=40", "preprocessing"),
        ("ema.enabled=false", "ema.enabled"),
        ("model.name=dropout", "model"),
        ("model.freeze=true", "model.freeze"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused_before_anything_is_written(
    change: str, named: str, tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pt"  # a frozen backbone must not be random
    torch.save(TinyNet().state_dict(), weights)
    given = (f"ckpt_path={tiny_run.folder.last}", f"model.weights={weights}")

    with pytest.raises(ResumeError, match=named):
        tiny_train(folder_data, tmp_path / "run", change, *given)

    assert not (tmp_path / "run").exists()


@pytest.mark.promise("R4")
def test_missing_checkpoint_leaves_the_folder_free(folder_data: Path, tmp_path: Path) -> None:
    """A typo must not claim the folder: corrected, the command would be another run."""
    with pytest.raises(ConfigError, match="nowhere"):
        tiny_train(folder_data, tmp_path / "run", "ckpt_path=nowhere.ckpt")

    assert not (tmp_path / "run").exists()


@pytest.mark.promise("R4")
@pytest.mark.parametrize("by", ["folder", "file"])
def test_warm_start_copies_weights_and_nothing_else(
    by: str, tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    given = tiny_run.folder.path if by == "folder" else tiny_run.folder.best

    folder = train_only(
        folder_data, tmp_path / "run", f"model.init_from={given}", "trainer.max_epochs=1",
        *use("Watch"),
    )  # fmt: skip

    checkpoint = read(tiny_run.folder.best)
    scored = scored_state(checkpoint, unpack_metadata(checkpoint, tiny_run.folder.best))
    assert differences(Watch.seen["initial"][0], dict(scored)) == []
    assert read(folder.last)["global_step"] == 6
    assert len(read_history(folder.history)) == 1


@pytest.mark.promise("R4")
def test_warm_start_with_other_classes_has_a_new_head(tiny_run: Run, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", classes=("a", "b"))

    train_only(
        data, tmp_path / "run", f"model.init_from={tiny_run.folder.path}",
        "trainer.max_epochs=1", *use("Watch"),
    )  # fmt: skip

    state = read(tiny_run.folder.best)["state_dict"]
    started = Watch.seen["initial"][0]
    for name, value in started.items():
        if ".fc." not in name:
            assert torch.equal(value, state[f"ema.module.{name}"]), name
    assert started["network.fc.weight"].shape[0] == 2


def _files(folder: Path) -> dict[str, tuple[int, bytes]]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}
