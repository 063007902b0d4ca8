"""Which folders a run may use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from classifier_training.errors import EXIT_RESUME, ResumeError
from classifier_training.run.folder import RunFolder
from classifier_training.run.identity import (
    Identity,
    adopt_changes,
    check_folder,
    is_extension,
    start_record,
)

ODD_NAMES = ["0", "00", "08", "1e3", "NO", "null", "~", "1_000", "0x10", "12:30", "é", " a", "${x}"]


def identity(**changes: Any) -> Identity:
    """Return an identity; ``optimizer__learning_rate=1`` changes a key."""
    config: dict[str, Any] = {
        "seed": 1,
        "resume": "auto",
        "logging": {},
        "data": {"data_root": "/images", "num_workers": 2, "classes": None},
        "optimizer": {"learning_rate": 5e-5, "betas": [0.9, 0.999]},
        "trainer": {"max_epochs": 3, "profiler": None},
        "callbacks": {"early_stopping": {"patience": 10}, "progress": {"line_every_s": 15.0}},
    }
    fingerprint = changes.pop("fingerprint", "a" * 64)
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    return Identity(config, fingerprint, "classifier train", config["resume"])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def refusal(folder: RunFolder, other: Identity) -> ResumeError:
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(ResumeError) as caught:
        check_folder(folder, other)
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    assert caught.value.exit_code == EXIT_RESUME
    return caught.value


@pytest.mark.promise("R2")
def test_a_run_killed_while_it_began_may_begin_again_and_no_other(folder: RunFolder) -> None:
    start_record(folder, identity(), {"id": "0123456789ab"})
    folder.record_file.unlink()

    assert check_folder(folder, identity()) is None
    told = refusal(folder, identity(optimizer__learning_rate=1.0))
    assert "has no run.json but holds config.yaml" in told.what
    folder.checkpoints.mkdir()
    assert "holds checkpoints, config.yaml" in refusal(folder, identity()).what


@pytest.mark.promise("R4")
def test_an_unused_folder_is_free_whether_it_exists_or_not(folder: RunFolder) -> None:
    assert check_folder(folder, identity()) is None
    folder.path.mkdir()
    assert check_folder(folder, identity()) is None


@pytest.mark.promise("R4")
def test_the_same_run_goes_on(folder: RunFolder) -> None:
    start_record(folder, identity(), {"id": "0123456789ab"})

    record = check_folder(folder, identity())

    assert record is not None
    assert record == folder.read_record()


@pytest.mark.promise("R4")
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seed": 2}, "seed: 2 here, 1 in the run"),
        ({"optimizer__learning_rate": 0.1}, "optimizer.learning_rate: 0.1 here, 5e-05 in the run"),
        ({"optimizer__betas": [0.9, 0.99]}, "optimizer.betas: [0.9, 0.99] here"),
        ({"trainer__max_epochs": 2}, "trainer.max_epochs: 2 here, 3 in the run"),
        ({"data__classes": ["a", "b"]}, "data.classes: ['a', 'b'] here, None in the run"),
        ({"callbacks__early_stopping": None}, "callbacks.early_stopping"),
        ({"new_key": 1}, "new_key: 1 here, None in the run"),
        ({"fingerprint": "b" * 64}, "data: fingerprint bbbbbbbbbbbb here, aaaaaaaaaaaa in the run"),
    ],
)
def test_another_run_is_refused_with_what_differs(
    folder: RunFolder, changes: dict[str, Any], line: str
) -> None:
    start_record(folder, identity(), {"id": "0123456789ab"})

    error = refusal(folder, identity(**changes))

    assert f"- {line}" in str(error)
    assert str(folder.path) in error.what
    assert "another hydra.run.dir" in error.fix


@pytest.mark.promise("R4")
def test_all_differences_are_listed(folder: RunFolder) -> None:
    start_record(folder, identity(), {"id": "0123456789ab"})

    error = refusal(folder, identity(seed=2, optimizer__learning_rate=0.1, fingerprint="b" * 64))

    assert error.what.count("\n    - ") == 3


@pytest.mark.promise("R4")
@pytest.mark.parametrize(
    "changes",
    [
        {"resume": "auto"},
        {"data__data_root": "/moved"},
        {"data__num_workers": 0},
        {"trainer__profiler": "simple"},
        {"trainer__max_epochs": 5},
        {"callbacks__progress": None},
        {"logging": {"csv": {"name": "x"}}},
    ],
)
def test_what_changes_no_result_may_differ_and_is_recorded(
    folder: RunFolder, changes: dict[str, Any]
) -> None:
    start_record(folder, identity(), {"id": "0123456789ab"})
    other = identity(**changes)

    assert check_folder(folder, other) is not None
    lines = adopt_changes(folder, other)

    assert bool(lines) == (other.config != identity().config)
    assert adopt_changes(folder, other) == []


@pytest.mark.promise("R4")
def test_resume_never_refuses_a_used_folder(folder: RunFolder) -> None:
    start_record(folder, identity(), {"id": "0123456789ab"})

    error = refusal(folder, identity(resume="never"))

    assert folder.read_record()["id"] in error.what
    assert "resume=never" in error.expected
    assert "resume=auto" in error.fix


@pytest.mark.promise("R4")
@pytest.mark.parametrize("name", ["checkpoints", "config.yaml", "metrics.csv", "model.onnx"])
def test_a_folder_with_files_that_a_run_would_overwrite_is_refused(
    folder: RunFolder, name: str
) -> None:
    folder.path.mkdir()
    (folder.path / name).write_text("mine")

    assert name in refusal(folder, identity()).what


@pytest.mark.promise("R4")
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 99}', "\xff"])
def test_a_damaged_record_is_refused(folder: RunFolder, content: str) -> None:
    start_record(folder, identity(), {"id": "0123456789ab"})
    folder.record_file.write_bytes(content.encode("latin-1"))

    assert "run.json" in refusal(folder, identity()).what


@pytest.mark.promise("R4")
@pytest.mark.parametrize("content", ["a: [", "\x00", "- 1"])
def test_a_damaged_stored_configuration_is_refused(folder: RunFolder, content: str) -> None:
    start_record(folder, identity(), {"id": "0123456789ab"})
    folder.config.write_text(content)

    assert refusal(folder, identity()).what


@pytest.mark.promise("R4")
@pytest.mark.promise("D2")
def test_odd_class_names_survive_the_stored_configuration(folder: RunFolder) -> None:
    named = identity(data__classes=ODD_NAMES)
    start_record(folder, named, {"id": "0123456789ab"})

    assert check_folder(folder, named) is not None
    assert "data.classes" in str(refusal(folder, identity(data__classes=ODD_NAMES[::-1])))


@pytest.mark.promise("R4")
def test_small_learning_rates_survive_the_stored_configuration(folder: RunFolder) -> None:
    for number, rate in enumerate((5e-5, 1e-3, 1e-10, 1.0, 1)):
        place = replace(folder, path=folder.path / str(number))
        start_record(place, identity(optimizer__learning_rate=rate), {"id": "0123456789ab"})
        assert check_folder(place, identity(optimizer__learning_rate=rate)) is not None


@pytest.mark.promise("R4")
@pytest.mark.parametrize(
    ("target", "is_free"),
    [
        ("classifier_training.callbacks.dataset_statistics.DatasetStatistics", True),
        ("lightning.pytorch.callbacks.LearningRateMonitor", True),
        ("classifier_training.callbacks.early_stopping.EarlyStopping", False),
        ("lightning.pytorch.callbacks.GradientAccumulationScheduler", False),
        ("os.path.join", False),
    ],
)
def test_callbacks_that_only_watch_may_come_and_go(
    folder: RunFolder, target: str, is_free: bool
) -> None:
    with_it = identity(callbacks={"more": {"_target_": target, "every": 1}})
    without = identity(callbacks={})
    start_record(folder, with_it, {"id": "0123456789ab"})

    if is_free:
        assert check_folder(folder, without) is not None
        assert any("callbacks.more" in line for line in adopt_changes(folder, without))
    else:
        assert "callbacks.more" in refusal(folder, without).what


@pytest.mark.promise("R4")
@pytest.mark.parametrize("key", ["every_n_steps", "every_minutes", "grace_s", "save_top_k"])
def test_when_a_run_is_saved_may_change(folder: RunFolder, key: str) -> None:
    start_record(
        folder, identity(checkpoint={"monitor": "val/loss", key: 1}), {"id": "0123456789ab"}
    )
    other = identity(checkpoint={"monitor": "val/loss", key: 2})

    assert check_folder(folder, other) is not None
    (line,) = adopt_changes(folder, other)
    assert line == f"checkpoint.{key}: 1 -> 2"
    assert not is_extension(line)
    assert is_extension("trainer.max_epochs: 2 -> 4")
