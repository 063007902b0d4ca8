"""The copy of a run behind a URI: complete, read back, and enough to go on from."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from moto.server import ThreadedMotoServer

from classifier_training.errors import ClassifierTrainingError, ConfigError, ResumeError
from classifier_training.run.folder import RunFolder
from classifier_training.run.identity import Identity
from classifier_training.run.mirror import INVENTORY, Mirror
from classifier_training.run.object_store import ObjectStore, StoreError
from classifier_training.system.files import write_json, write_text
from tests.helpers.runs import tiny_train
from tests.helpers.storage import finish, start, training, wait_for

SECRET = "hunter2-not-to-be-seen"


class Bucket:
    """An S3 server on this machine, that can be away for a while, and what is in its bucket."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]
        self.environment = {
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
        }

    def files(self) -> Any:
        return fsspec.filesystem(
            "s3",
            key="someone",
            secret=SECRET,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    def go_away(self) -> None:
        self._server.stop()

    def come_back(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    found = Bucket()
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    found.files().makedirs("runs", exist_ok=True)
    yield found
    found.go_away()


def _run_folder(path: Path, *, run_id: str = "one", epochs: int = 1) -> RunFolder:
    """Write the files of a run, with contents that can be told apart."""
    folder = RunFolder(path)
    write_json(folder.record_file, {"schema_version": 1, "id": run_id})
    write_text(folder.history, "epoch\n" + "0\n" * epochs)
    for name in ("last", "best", "epoch=0001"):
        write_text(folder.checkpoints / f"{name}.ckpt", f"{name} of {epochs}")
    return folder


def _mirror(uri: str, folder: RunFolder, patience_s: float = 0.0) -> Mirror:
    return Mirror(ObjectStore(uri), folder, every_s=0.05, patience_s=patience_s)


def _contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.promise("R20")
def test_the_copy_has_every_file_and_nothing_unfinished(tmp_path: Path) -> None:
    folder = _run_folder(tmp_path / "run")
    (folder.path / ".run.json.17.tmp").write_text("half")

    with _mirror(f"file://{tmp_path}/copy", folder):
        write_text(folder.checkpoints / "last.ckpt", "newer")
        (folder.checkpoints / "epoch=0001.ckpt").unlink()
        write_text(folder.checkpoints / "epoch=0002.ckpt", "two")

    copied = _contents(tmp_path / "copy")
    assert json.loads(copied.pop(INVENTORY))["complete"]
    (folder.path / ".run.json.17.tmp").unlink()
    assert copied == _contents(folder.path)


@pytest.mark.promise("R20")
def test_a_copy_that_does_not_return_what_was_written_is_mended(tmp_path: Path) -> None:
    folder, copy = _run_folder(tmp_path / "run"), tmp_path / "copy"
    with _mirror(f"file://{copy}", folder):
        pass
    (copy / "checkpoints" / "best.ckpt").write_text("bits that flipped")

    identity = Identity({}, "", "", "auto")
    again = _mirror(f"file://{copy}", folder, patience_s=30)
    again.restore(identity)  # knows now what should be there
    with again:
        pass

    assert (copy / "checkpoints" / "best.ckpt").read_text() == "best of 1"


class _DyingStore(ObjectStore):
    """Training saves the next epoch while best is being copied; then the machine is gone."""

    def __init__(self, uri: str, folder: RunFolder) -> None:
        super().__init__(uri)
        self._run = folder
        self._is_dead = False

    def put(self, source: Path, name: str) -> None:
        if self._is_dead:
            raise StoreError("gone")
        super().put(source, name)
        if name == "checkpoints/best.ckpt":
            write_text(self._run.checkpoints / "best.ckpt", "best of 2")
            write_text(self._run.checkpoints / "last.ckpt", "last of 2")
        self._is_dead = name == "checkpoints/last.ckpt"


@pytest.mark.promise("R20")
def test_a_copy_never_has_a_last_that_is_newer_than_its_best(tmp_path: Path) -> None:
    folder = _run_folder(tmp_path / "run")
    store = _DyingStore(f"file://{tmp_path}/copy", folder)

    with (
        pytest.raises(ClassifierTrainingError, match="gone"),
        Mirror(store, folder, every_s=60, patience_s=0),
    ):
        pass

    copied = _contents(tmp_path / "copy")
    assert copied["checkpoints/best.ckpt"] == b"best of 1"
    assert copied["checkpoints/last.ckpt"] == b"last of 1"
    assert "run.json" not in copied  # which would say that there is a run


@pytest.mark.promise("R20")
def test_a_store_that_stays_away_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = _run_folder(tmp_path / "run")
    (tmp_path / "copy").write_text("a file where the folder should be")

    with (
        pytest.raises(ClassifierTrainingError, match="cannot be written") as caught,
        _mirror(f"file://{tmp_path}/copy/run", folder),
    ):
        pass

    assert caught.value.exit_code == 1
    assert str(folder.path) in caught.value.what  # the run itself is whole


@pytest.mark.promise("R20")
def test_a_copy_of_another_run_or_a_newer_one_is_not_written_over(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/copy"
    with _mirror(uri, _run_folder(tmp_path / "run", epochs=3)):
        pass
    before = _contents(tmp_path / "copy")

    for other in (
        _run_folder(tmp_path / "other", run_id="two", epochs=3),
        _run_folder(tmp_path / "older", epochs=1),
    ):
        with pytest.raises(ResumeError):
            _mirror(uri, other).restore(Identity({}, "", "", "auto"))

    assert _contents(tmp_path / "copy") == before


@pytest.mark.promise("R20")
@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:secret@bucket/run",
        "s3://bucket/run?token=secret",
        "s3://bucket",
        "ftp://host/run",
        "runs/copy",
    ],
)
def test_secrets_and_places_that_are_none_are_refused_before_anything_is_written(
    uri: str, folder_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="output_uri"):
        tiny_train(folder_data, tmp_path / "run", f'output_uri="{uri}"')

    assert not (tmp_path / "run").exists()


@pytest.mark.promise("R20")
def test_a_missing_package_is_named_before_anything_is_written(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)  # not installed

    with pytest.raises(ConfigError, match="gcsfs"):
        tiny_train(folder_data, tmp_path / "run", "output_uri=gs://bucket/run")

    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.promise("R20")
def test_an_empty_machine_goes_on_from_s3_bit_by_bit(
    bucket: Bucket, folder_data: Path, tmp_path: Path
) -> None:
    """SIGTERM in mid-run, everything on that machine lost, the same command on another one."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    more = ("trainer.max_epochs=12", "callbacks.early_stopping=null")
    tiny_train(folder_data, whole, *more)
    command = training(folder_data, run, *more, "output_uri=s3://runs/first")
    process = start(*command, **bucket.environment)
    wait_for(run / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 143, output
    shutil.rmtree(run)

    code, output = finish(start(*command, **bucket.environment))

    assert code == 0, output
    assert "going on from" in output
    assert "read back and equal" in output
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    ours, theirs = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (run, whole)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)
    _require_complete(bucket, run)
    assert not [name for name, data in _contents(run).items() if SECRET.encode() in data]
    assert SECRET not in output


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.promise("R20")
def test_a_server_that_is_away_for_a_while_stops_nothing(
    bucket: Bucket, folder_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = ("trainer.max_epochs=12", "callbacks.early_stopping=null")
    command = training(folder_data, run, *more, "output_uri=s3://runs/second")
    process = start(*command, **bucket.environment)
    wait_for(run / "run.json", process)
    bucket.go_away()
    wait_for(run / "model.onnx", process)  # training, evaluation and export went on without it
    bucket.come_back()

    code, output = finish(process)

    assert code == 0, output
    assert "training goes on" in output
    _require_complete(bucket, run, "second")


def _require_complete(bucket: Bucket, run: Path, name: str = "first") -> None:
    files = bucket.files()
    found = {
        path.removeprefix(f"runs/{name}/"): files.cat_file(path)
        for path in files.find(f"runs/{name}")
    }
    assert json.loads(found.pop(INVENTORY))["complete"]
    here = _contents(run)
    log, copied_log = here.pop("log.txt"), found.pop("log.txt")
    assert log.startswith(copied_log)  # its last line says that all else is there
    assert found == here
