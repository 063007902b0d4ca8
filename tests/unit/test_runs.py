"""Runs below a folder, and their averages over seeds and folds."""

from __future__ import annotations

import csv
import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from classifier_training.cli.runs import run_runs
from classifier_training.errors import EXIT_CONFIG, EXIT_DATA, EXIT_OK, ConfigError, DataError
from classifier_training.evaluation.aggregate import Aggregate, aggregate, mean_of
from classifier_training.run.folder import RunFolder
from classifier_training.run.identity import Identity, start_record
from classifier_training.run.listing import changed_keys, find_runs
from classifier_training.run.reader import Run
from classifier_training.system.files import write_json

pytestmark = pytest.mark.promise("N2")


def write_run(
    path: Path,
    *,
    seed: int = 0,
    rate: float = 0.001,
    scores: Mapping[str, float] | None = None,
    fold: int | None = None,
    fingerprint: str = "f" * 64,
    status: str = "finished",
    started: str = "2026-01-01T00:00:00+00:00",
    root: str = "/data",
) -> Path:
    """Write the small files of a run, by the code that writes them in training."""
    config: dict[str, Any] = {
        "seed": seed,
        "resume": "auto",
        "data": {"data_root": root, "split": {"folds": 5 if fold is not None else None}},
        "model": {"name": "resnet18", "weights": None},
        "optimizer": {"learning_rate": rate},
    }
    config["data"]["split"]["fold"] = fold
    folder = RunFolder(path)
    start_record(
        folder, Identity(config, fingerprint, "classifier train", "auto"), {"id": "0123456789ab"}
    )
    found = dict(scores or {"val/f1_macro": 0.5})
    best = {"epoch": 3, "metric": "val/f1_macro", "score": found.get("val/f1_macro", 0.5)}
    folder.update_record(
        {
            "status": status,
            "best": best,
            "started": started,
            "stages_s": {"fit": 50, "export": 11.5},
        }
    )
    for split in {name.partition("/")[0] for name in found}:
        metrics = {
            name.partition("/")[2]: {"value": value, "low": value - 0.1, "high": value + 0.1}
            for name, value in found.items()
            if name.startswith(f"{split}/")
        }
        write_json(folder.evaluation(split) / "metrics.json", {"split": split, "metrics": metrics})
    return path


def average(folder: Path, *by: str) -> Aggregate:
    return aggregate(find_runs(folder), by)


def test_a_run_is_told_from_its_small_files(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", seed=7, rate=1e-05, scores={"val/f1_macro": 0.8, "test/loss": 2})

    (row,) = find_runs(tmp_path)

    assert (row.name, row.status, row.metric, row.best_epoch) == (
        "runs/a",
        "finished",
        "val/f1_macro",
        4,
    )
    assert row.best is not None
    assert (row.best.value, row.best.low, row.best.high) == pytest.approx((0.8, 0.7, 0.9))
    assert row.wall_s == 61.5
    assert row.config["optimizer.learning_rate"] == 1e-05
    assert row.config["seed"] == 7
    assert row.scores["test/loss"].value == 2


def test_an_interval_of_another_value_is_not_given_to_the_best_one(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", scores={"val/f1_macro": 0.8})
    record = json.loads((path / "run.json").read_text())
    record["best"]["score"] = 0.6  # monitored something else of that name, as raw weights
    write_json(path / "run.json", record)

    (row,) = find_runs(tmp_path)

    assert row.best is not None
    assert row.best.value == 0.6
    assert math.isnan(row.best.low)


def test_a_real_run_is_read(tiny_run: Run) -> None:
    (row,) = find_runs(tiny_run.folder.path)

    assert row.status == "finished"
    assert row.best is not None
    assert row.best.value == tiny_run.best_score
    assert row.best.low <= row.best.value <= row.best.high
    assert row.fingerprint == tiny_run.record["data_fingerprint"]
    assert {"val/acc_top1", "test/f1_macro"} <= row.scores.keys()
    assert row.config["model.name"] == "tiny"


def test_runs_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_run(tmp_path / "sweep" / str(number), seed=number)

    assert [row.name for row in find_runs(tmp_path)] == ["sweep/1", "sweep/2", "sweep/10"]


def test_only_keys_that_differ_are_shown_and_none_that_may(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0, rate=0.1, root="/here")
    write_run(tmp_path / "b", seed=1, rate=0.1, root="/there")
    write_run(tmp_path / "c", seed=1, rate=0.2)

    assert changed_keys(find_runs(tmp_path)) == ["optimizer.learning_rate", "seed"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


DAMAGES = {
    "no run.json": lambda run: (run / "run.json").unlink(),
    "cut run.json": lambda run: cut(run / "run.json"),
    "list": lambda run: (run / "run.json").write_text("[1, 2]"),
    "empty": lambda run: (run / "run.json").write_text(""),
    "version": lambda run: (run / "run.json").write_text('{"schema_version": 99}'),
    "missing key": lambda run: (run / "run.json").write_text('{"schema_version": 1}'),
    "binary": lambda run: (run / "run.json").write_bytes(b"\xff\xfe\x00"),
    "folder": lambda run: ((run / "run.json").unlink(), (run / "run.json").mkdir()),
    "no config": lambda run: (run / "config.yaml").unlink(),
    "bad yaml": lambda run: (run / "config.yaml").write_text("a: [1"),
    "text yaml": lambda run: (run / "config.yaml").write_text("hello"),
    "code in yaml": lambda run: (run / "config.yaml").write_text(
        "a: !!python/object/apply:os.system ['true']"
    ),
    "cut metrics": lambda run: cut(run / "evaluation/val/metrics.json"),
    "metrics": lambda run: (run / "evaluation/val/metrics.json").write_text('{"metrics": [3]}'),
    "no metrics": lambda run: (run / "evaluation/val/metrics.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_listed_with_the_reason(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "good")
    bad = write_run(tmp_path / "bad")
    (bad / "checkpoints").mkdir()
    DAMAGES[damage](bad)

    worse, fine = find_runs(tmp_path)

    assert (worse.name, worse.status, fine.status) == ("bad", "damaged", "finished")
    assert worse.reason
    for with_average in (False, True):
        code = run_runs(
            tmp_path,
            aggregate=with_average,
            by=None,
            json_file=None,
            csv_file=None,
            html_file=tmp_path / "runs.html",
            debug=False,
        )
        told = capsys.readouterr()
        assert code == EXIT_OK
        assert worse.reason in told.out
        assert "Traceback" not in told.err


@given(st.binary(max_size=200), st.sampled_from(["run.json", "config.yaml"]))
@settings(max_examples=60, deadline=None)
def test_whatever_a_file_holds_there_is_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "a")
    (folder / "a" / name).write_bytes(content)

    assert len(find_runs(folder)) == 1
    shutil.rmtree(folder)


def test_no_folder_and_no_runs_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        find_runs(tmp_path / "no")
    with pytest.raises(DataError, match="no runs below"):
        find_runs(tmp_path)


@pytest.mark.parametrize("values", [[0.1, 0.3], [0.7, 0.71, 0.69], [1, 2, 3, 4, 100], [0.5, 0.5]])
def test_mean_and_interval_are_scipys(values: list[float]) -> None:
    found = mean_of(values)

    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    if np.std(values):
        low, high = stats.t.interval(
            0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
        )
        assert (found.low, found.high) == pytest.approx((low, high))
    else:
        assert found.low == found.high == 0.5


def test_one_run_has_no_interval() -> None:
    found = mean_of([0.7])

    assert (found.count, found.mean, found.sd, found.low, found.high) == (1, 0.7, None, None, None)


def test_folds_widen_the_interval_as_nadeau_and_bengio_say() -> None:
    values = [0.7, 0.72, 0.68, 0.75, 0.71]
    plain, folds = mean_of(values), mean_of(values, folds=5)

    assert None not in (plain.low, plain.high, folds.low, folds.high)
    ratio = (folds.high - folds.low) / (plain.high - plain.low)  # type: ignore[operator]
    assert ratio == pytest.approx(math.sqrt((1 / 5 + 1 / 4) / (1 / 5)))


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path: Path) -> None:
    for seed, score in enumerate((0.6, 0.7, 0.8)):
        for rate in (0.1, 0.01):
            scores = {"val/f1_macro": score + rate, "test/acc_top1": score}
            write_run(
                tmp_path / f"{rate}-{seed}", seed=seed, rate=rate, scores=scores, root=f"/{seed}"
            )

    found = average(tmp_path)

    assert [group.values for group in found.groups] == [
        {"optimizer.learning_rate": 0.01},
        {"optimizer.learning_rate": 0.1},
    ]
    for group in found.groups:
        assert [row.config["seed"] for row in group.runs] == [0, 1, 2]
        assert group.means["test/acc_top1"].mean == pytest.approx(0.7)
        assert group.means["test/acc_top1"].count == 3
        rate = group.values["optimizer.learning_rate"]
        assert group.means["val/f1_macro"].mean == pytest.approx(0.7 + rate)
        assert not group.over_folds


def test_other_data_makes_another_group_but_another_fold_does_not(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1, fingerprint="e" * 64)
    assert len(average(tmp_path).groups) == 2

    for fold in range(3):
        write_run(tmp_path / "folds" / str(fold), fold=fold, fingerprint=str(fold) * 64)
    (group,) = average(tmp_path / "folds").groups
    assert (len(group.runs), group.over_folds) == (3, True)


def test_unfinished_runs_are_left_out_and_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1, status="failed")
    write_run(tmp_path / "c", seed=2, status="running")

    found = average(tmp_path)

    assert [row.name for group in found.groups for row in group.runs] == ["a"]
    assert found.left_out == (("b", "failed"), ("c", "running"))


def test_the_same_run_twice_is_no_further_evidence(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0, started="2026-01-01T00:00:00+00:00")
    write_run(tmp_path / "b", seed=0, started="2026-01-02T00:00:00+00:00")
    write_run(tmp_path / "c", seed=1)

    found = average(tmp_path)

    assert [row.name for row in found.groups[0].runs] == ["b", "c"]
    assert found.left_out == (("a", "the same configuration and seed as b"),)


def test_by_groups_by_these_keys_alone_and_says_what_else_varies(tmp_path: Path) -> None:
    for number, rate in enumerate((0.1, 0.01, 0.001)):
        write_run(tmp_path / str(number), seed=number, rate=rate)

    (group,) = average(tmp_path, "model").groups
    assert (len(group.runs), group.also_varies) == (3, ("optimizer.learning_rate",))
    assert len(average(tmp_path, "model", "optimizer").groups) == 3
    with pytest.raises(ConfigError, match=r"--by optimzer.*no run has this key"):
        average(tmp_path, "optimzer")


def test_a_metric_that_some_runs_lack_says_how_many_have_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0, scores={"val/f1_macro": 0.5, "test/loss": 1.0})
    write_run(tmp_path / "b", seed=1, scores={"val/f1_macro": 0.7})

    means = average(tmp_path).groups[0].means

    assert (means["val/f1_macro"].count, means["test/loss"].count) == (2, 1)
    assert means["test/loss"].sd is None


def test_the_command_writes_json_and_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        scores = {"val/f1_macro": 0.5 + seed / 10, "test/f1_macro": 0.4}
        write_run(tmp_path / "runs" / str(seed), seed=seed, scores=scores)
    bad = write_run(tmp_path / "runs/2")
    cut(bad / "run.json")
    files = {"json_file": tmp_path / "r.json", "csv_file": tmp_path / "r.csv", "html_file": None}

    for with_average in (False, True):
        code = run_runs(tmp_path / "runs", aggregate=with_average, by=None, debug=False, **files)

        said = capsys.readouterr().out
        content = json.loads((tmp_path / "r.json").read_text())
        with (tmp_path / "r.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert code == EXIT_OK
        assert [row["status"] for row in content["runs"]] == ["finished", "finished", "damaged"]
        if with_average:
            assert "0.5500" in said
            assert "(n = 2)" in said
            assert "seeds 0, 1" in said
            by_metric = {row["metric"]: row for row in rows}
            assert float(by_metric["val/f1_macro"]["mean"]) == pytest.approx(0.55)
            assert by_metric["val/f1_macro"]["n"] == "2"
            assert content["groups"][0]["metrics"]["test/f1_macro"]["sd"] == 0
            assert content["left_out"][0]["run"] == "2"
        else:
            assert "seed=1" in said
            assert "1:02" in said  # 61.5 seconds
            assert [row["seed"] for row in rows] == ["0", "1", ""]
            assert content["runs"][1]["changed"] == {"seed": 1}


def test_faults_of_the_command_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = {"json_file": None, "csv_file": None, "html_file": None, "debug": False}
    write_run(tmp_path / "a")

    assert run_runs(tmp_path, aggregate=False, by="model", **plain) == EXIT_CONFIG
    assert "--aggregate --by model" in capsys.readouterr().err
    assert run_runs(tmp_path / "no", aggregate=False, by=None, **plain) == EXIT_DATA
    wrong = {**plain, "json_file": tmp_path / "a/run.json/x.json"}
    assert run_runs(tmp_path, aggregate=False, by=None, **wrong) == EXIT_CONFIG
    assert "cannot write" in capsys.readouterr().err


def test_three_hundred_runs_are_read_in_seconds(tmp_path: Path) -> None:
    first = write_run(tmp_path / "0")
    text = (first / "config.yaml").read_text()
    for seed in range(1, 300):
        copy = shutil.copytree(first, tmp_path / str(seed))
        (copy / "config.yaml").write_text(text.replace("seed: 0", f"seed: {seed}"))
    started = time.monotonic()

    (group,) = average(tmp_path).groups

    assert group.means["val/f1_macro"].count == 300
    assert time.monotonic() - started < 10
