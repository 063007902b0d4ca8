"""What a run survives and what it refuses: kills, damage, lost memory, processes and data."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from loguru import logger

from classifier_training.errors import (
    ClassifierTrainingError,
    ConfigError,
    DataError,
    DivergedError,
    InterruptedRunError,
    ResumeError,
)
from classifier_training.models.normalize import Normalize
from classifier_training.models.weights import read_checkpoint
from classifier_training.run.checkpoint import load_model
from classifier_training.run.checkpoint_files import CheckpointFiles
from classifier_training.run.folder import RunFolder
from classifier_training.run.lock import RunLock
from classifier_training.run.reader import Run
from classifier_training.system.integrity import damage_of, digest_of
from classifier_training.training.checkpoint import RunCheckpoint
from classifier_training.training.distributed import Processes
from classifier_training.training.signals import StopSignals
from tests.helpers.checkpoints import differences, read, training_state
from tests.helpers.config import config_of
from tests.helpers.data import write_folder
from tests.helpers.observers import Watch, use
from tests.helpers.runs import tiny_train
from tests.helpers.training import parts_of, tiny_config, train_only

_THREE = ("trainer.max_epochs=3",)


def _steps_saved(folder: Path) -> list[int]:
    content = json.loads((folder / "checkpoints" / "manifest.json").read_text())
    return [entry["step"] for entry in content["files"]["last.ckpt"]]


class Crash(Callback):
    """Ends a run as a crash does, or in another bad way, the first time a batch is reached.

    Args:
        marker: A file that is made then.
        how: What happens.
        epoch: In which epoch.
        batch: Before which batch.
    """

    data: ClassVar[Path]

    def __init__(self, marker: str, how: str, epoch: int = 1, batch: int = 4) -> None:
        self._marker, self._how, self._place = Path(marker), how, (epoch, batch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) != self._place or self._marker.exists():
            return
        self._marker.touch()
        if self._how == "crash":
            raise SystemError("as the test wants it")
        if self._how == "gpu memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        if self._how == "memory":
            torch.empty(1 << 50, dtype=torch.uint8)  # a petabyte
        if self._how == "worker":
            workers = trainer.fit_loop._data_fetcher.combined_loader._iterator.iterators[0]._workers
            for worker in workers:
                os.kill(worker.pid, signal.SIGKILL)
        if self._how == "data":
            for path in self.data.glob("train/*/*"):
                path.unlink()


def _crash(marker: Path, how: str) -> list[str]:
    name = f"{__name__}.Crash"
    return [
        f"allow_modules=[{__name__}]",
        f"callbacks.crash._target_={name}",
        f"callbacks.crash.marker={marker}",
        f"callbacks.crash.how={how}",
    ]


@pytest.mark.promise("R1")
@pytest.mark.promise("R2")
@pytest.mark.parametrize(
    ("overrides", "saved"),
    [
        (("checkpoint.every_n_steps=1",), [10, 9]),
        (("checkpoint.every_n_steps=3",), [9, 6]),
        (("checkpoint.every_n_steps=6",), [6]),  # never on an epoch's last batch
        (("checkpoint.every_n_steps=1", "trainer.accumulate_grad_batches=2"), [5, 4]),
        (("checkpoint.every_minutes=1e-9", "data.num_workers=2"), [10, 9]),
    ],
    ids=["each", "third", "sixth", "accumulating", "clock"],
)
def test_what_was_saved_inside_an_epoch_goes_on_exactly(
    overrides: tuple[str, ...], saved: list[int], folder_data: Path, tmp_path: Path
) -> None:
    whole = train_only(folder_data, tmp_path / "whole", *_THREE)
    if "trainer.accumulate_grad_batches=2" in overrides:
        whole = train_only(folder_data, tmp_path / "accumulated", *_THREE, overrides[1])
    command = (*_THREE, *overrides, *_crash(tmp_path / "crashed", "crash"))

    with pytest.raises(SystemError):
        train_only(folder_data, tmp_path / "run", *command)
    steps = _steps_saved(tmp_path / "run")
    folder = train_only(folder_data, tmp_path / "run", *command)

    assert steps == saved
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (training_state(run.checkpoints / name) for run in (folder, whole))
        one["callbacks"] = {k: v for k, v in one["callbacks"].items() if "Crash" not in k}
        assert differences(one, other) == []
    assert folder.history.read_text() == whole.history.read_text()


@pytest.mark.promise("R3")
@pytest.mark.parametrize(("grace", "saved"), [("1e-9", 6), ("1000.0", 12)])
def test_a_validation_is_waited_for_when_the_grace_allows_it(
    grace: str, saved: int, folder_data: Path, tmp_path: Path
) -> None:
    kill = use("Kill", hook="validation", epoch=1, batch=0, marker=tmp_path / "killed")
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")

    with pytest.raises(InterruptedRunError) as stopped:
        train_only(folder_data, tmp_path / "run", *_THREE, f"checkpoint.grace_s={grace}", *kill)

    logger.remove(sink)
    assert stopped.value.exit_code == 143
    assert read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == saved
    measured = [line for line in lines if "s after the signal" in line]
    assert bool(measured) == (saved == 12)
    assert ("s after the signal" in stopped.value.what) == (saved == 12)


@pytest.mark.promise("T6")
def test_a_bad_batch_is_written_whole_and_can_be_replayed(
    folder_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError) as stopped:
        train_only(
            folder_data, tmp_path / "run", "model.name=dropout", "trainer.log_every_n_steps=50",
            *use("Poison", epoch=1, batch=2), *use("Watch"),
        )  # fmt: skip

    (path,) = (tmp_path / "run" / "diverged").iterdir()
    dump = read(path)
    assert str(path) in stopped.value.what
    assert (dump["step"], dump["epoch"], dump["batch"]) == (8, 1, 2)
    seen = Watch.seen["batch"][8]  # looked at later: the epoch was finished first
    for name in ("images", "labels", "indices"):
        assert torch.equal(dump[name], getattr(seen, name)), name
    manifest = parts_of(tiny_config(folder_data)).data.manifest
    assert dump["files"] == [manifest.describe(int(index)) for index in dump["indices"]]
    assert set(dump["rng"]) == {"cpu"}
    assert path.stat().st_size < 1 << 20
    model = load_model(tmp_path / "run" / "checkpoints" / "last.ckpt")
    logits = model.network(Normalize(model.metadata.spec)(dump["images"]))
    assert logits.shape == (8, 4)


@pytest.mark.promise("R8")
@pytest.mark.parametrize(
    ("how", "error", "told"),
    [
        ("gpu memory", ConfigError, "data.batch_size=4 trainer.accumulate_grad_batches=2"),
        ("memory", ConfigError, "data.batch_size=4 trainer.accumulate_grad_batches=2"),
        ("worker", ClassifierTrainingError, "data.num_workers"),
        ("data", DataError, "restore the file"),
    ],
)
def test_lost_memory_processes_and_data_are_told_and_the_run_goes_on(
    how: str, error: type[ClassifierTrainingError], told: str, tmp_path: Path
) -> None:
    data = Crash.data = write_folder(tmp_path / "data")
    whole = train_only(data, tmp_path / "whole", *_THREE)
    workers = ("data.num_workers=2", "data.prefetch_factor=1") if how == "worker" else ()
    command = (*_THREE, "data.cache=none", *workers, *_crash(tmp_path / "crashed", how))

    with pytest.raises(error) as stopped:
        train_only(data, tmp_path / "run", *command)
    saved = read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]
    shutil.rmtree(data)
    write_folder(data)
    folder = train_only(data, tmp_path / "run", *command)

    assert type(stopped.value) is error
    assert stopped.value.exit_code == {"data": 3, "worker": 1}.get(how, 2)
    assert told in stopped.value.fix
    assert saved == 6
    one, other = training_state(folder.last), training_state(whole.last)
    one["callbacks"] = {k: v for k, v in one["callbacks"].items() if "Crash" not in k}
    assert differences(one, other) == []


def _damaged(data: bytes, kind: str, rng: random.Random) -> bytes:
    if kind == "cut":
        return data[: rng.randrange(len(data))]
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


@pytest.mark.promise("R2")
@pytest.mark.promise("S1")
@pytest.mark.parametrize("kind", ["cut", "flipped"])
def test_damage_anywhere_is_noticed(kind: str, tiny_run: Run, tmp_path: Path) -> None:
    """Cut short at 20 places; 100 bits flipped, each either noticed or without any effect."""
    data = tiny_run.folder.last.read_bytes()
    whole = read(tiny_run.folder.last)
    rng = random.Random(7)
    path = tmp_path / "x.ckpt"
    noticed = 0

    for _ in range(20 if kind == "cut" else 100):
        path.write_bytes(_damaged(data, kind, rng))
        try:
            content = read_checkpoint(path)
        except ConfigError:
            noticed += 1
        else:
            assert differences(content, whole) == []  # alignment bytes between the tensors

    assert noticed == 20 if kind == "cut" else noticed > 20


@pytest.mark.promise("R2")
def test_a_flipped_weight_is_reported_and_the_newest_whole_one_used(
    folder_data: Path, tmp_path: Path
) -> None:
    whole = train_only(folder_data, tmp_path / "whole", *_THREE)
    folder = train_only(folder_data, tmp_path / "run", *_THREE)
    weight = read(folder.last)["state_dict"]["net.network.fc.weight"].numpy().tobytes()
    data = folder.last.read_bytes()
    at = data.index(weight) + 5
    folder.last.unlink()  # it may be the same file as the best
    folder.last.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    torch.load(folder.last, weights_only=True)  # torch itself notices nothing
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")

    train_only(folder_data, tmp_path / "run", *_THREE)

    logger.remove(sink)
    assert any("last.ckpt" in line and "damaged" in line for line in lines)
    assert differences(training_state(folder.last), training_state(whole.last)) == []


@pytest.mark.promise("R2")
def test_a_run_whose_checkpoints_are_all_damaged_is_refused(
    tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run.folder.path, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ConfigError, match="no other checkpoint of this run is whole"):
        tiny_train(folder_data, tmp_path / "run", *_THREE)


class _Malicious:
    """What an attacker's pickle does when it is loaded."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


@pytest.mark.promise("S1")
@pytest.mark.parametrize("place", ["last.ckpt", "given"])
def test_a_malicious_checkpoint_is_refused_and_nothing_executed(
    place: str, tiny_run: Run, folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {**read(tiny_run.folder.last), "more": _Malicious()}
    torch.save(content, tmp_path / "evil.ckpt")
    extra = [f"ckpt_path={tmp_path / 'evil.ckpt'}"]
    if place != "given":
        shutil.copytree(tiny_run.folder.path, tmp_path / "run")
        for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):
            shutil.copy(tmp_path / "evil.ckpt", path)
        extra = [*_THREE]

    with pytest.raises(ConfigError, match="no file of plain tensors"):
        tiny_train(folder_data, tmp_path / "run", *extra)

    assert not (tmp_path / "executed").exists()


@pytest.mark.promise("R4")
def test_checkpoint_of_other_classes_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", classes=("a", "b", "c", "d"))

    with pytest.raises(ResumeError, match="another classes"):
        tiny_train(data, tmp_path / "run", f"ckpt_path={tiny_run.folder.last}")

    assert not (tmp_path / "run").exists()


@pytest.mark.promise("R4")
def test_weights_alone_are_no_checkpoint_to_go_on_from(
    tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    content = read(tiny_run.folder.last)
    del content["optimizer_states"]
    torch.save(content, tmp_path / "weights.ckpt")

    with pytest.raises(ResumeError, match=r"model\.init_from"):
        tiny_train(folder_data, tmp_path / "run", f"ckpt_path={tmp_path / 'weights.ckpt'}")


@pytest.mark.promise("R2")
def test_manifest_lists_what_was_written(tiny_run: Run) -> None:
    folder = tiny_run.folder.checkpoints
    listed = json.loads((folder / "manifest.json").read_text())["files"]

    for path in folder.glob("*.ckpt"):
        newest = listed[path.name][0]
        content = read(path)
        assert newest["digest"] == digest_of(path)
        assert newest["bytes"] == path.stat().st_size
        assert (newest["epoch"], newest["step"]) == (content["epoch"], content["global_step"])
        assert damage_of(path) is None


@pytest.mark.promise("R2")
def test_pruning_spares_what_the_run_did_not_write(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path)
    for name in ("epoch=0000.ckpt", "epoch=0001.ckpt"):
        with files.saving() as draft:
            torch.save({"name": name}, draft)
            files.publish(draft, [name], epoch=0, step=1)
    torch.save({"name": "mine"}, tmp_path / "epoch=0001.ckpt")
    torch.save({"name": "mine"}, tmp_path / "epoch=0002.ckpt")

    files.prune(["epoch=0000.ckpt", "epoch=0001.ckpt", "epoch=0002.ckpt", "epoch=0003.ckpt"])

    left = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert left == ["epoch=0001.ckpt", "epoch=0002.ckpt"]


@pytest.mark.promise("R5")
def test_a_kill_between_best_and_last_leaves_the_best_that_last_knows(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    files = CheckpointFiles(folder.checkpoints)
    for epoch, names in enumerate((("best.ckpt", "last.ckpt"), ("best.ckpt",))):
        with files.saving() as draft:
            torch.save({"epoch": epoch}, draft)
            files.publish(draft, [f"epoch={epoch:04d}.ckpt", *names], epoch=epoch, step=epoch)
    config = config_of("data.data_root=x").checkpoint
    checkpoint = RunCheckpoint(folder, config, StopSignals(1.0, "", Processes()), Processes())
    state = {"rows": [{"epoch": 0, "step": 0}], "best_epoch": 0, "best_score": 0.5}
    checkpoint.load_state_dict({**state, "kept": {"epoch=0000.ckpt": 0.5}})

    for _ in range(2):
        checkpoint.tidy()
        assert torch.load(folder.best, weights_only=True) == {"epoch": 0}
        assert files.is_ours(folder.best)


@pytest.mark.promise("R10")
def test_a_folder_in_use_is_refused_and_left_alone(folder_data: Path, tmp_path: Path) -> None:
    with RunLock(tmp_path / "run"):
        with pytest.raises(ResumeError, match=f"in use by process {os.getpid()}"):
            tiny_train(folder_data, tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]
