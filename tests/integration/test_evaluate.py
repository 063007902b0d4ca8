"""``evaluate``: what it writes, that it costs one pass, and what it says when it cannot."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import classifier_training
from classifier_training.cli.console import set_up_logging
from classifier_training.cli.evaluate import run_evaluate
from classifier_training.cli.verdict import show_verdict
from classifier_training.config.metric_names import SCORES
from classifier_training.errors import (
    ClassifierTrainingError,
    ConfigError,
    DataError,
    ExportError,
    ResumeError,
)
from classifier_training.evaluation.evaluate import Evaluation, evaluate
from classifier_training.run.reader import Run
from tests.helpers import spies
from tests.helpers.data import CLASSES, COUNTS, class_image, write_folder
from tests.helpers.hard_data import write_hard_folder
from tests.helpers.runs import tiny_train

FILES = {
    "metrics.json", "per_class.csv", "predictions.csv", "confusion_matrix.csv",
    "confusion_matrix.png", "reliability.csv", "reliability.png", "risk_coverage.csv",
    "risk_coverage.png", "slices.csv",
}  # fmt: skip


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def copied_run(tiny_run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.folder.path, tmp_path / "copied"))


@pytest.fixture(autouse=True)
def _log_sink() -> Iterator[None]:
    """Commands send the log to the stderr of the moment, which pytest closes after the test."""
    yield
    set_up_logging(debug=False)


@pytest.fixture(scope="module")
def hard_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hard_folder(tmp_path_factory.mktemp("hard") / "images")


@pytest.fixture(scope="module")
def uneven_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Class "00" has no val images, "NO" no test images; "1e3" is rare."""
    root = write_hard_folder(tmp_path_factory.mktemp("uneven") / "images")
    shutil.rmtree(root / "val" / "00")
    shutil.rmtree(root / "test" / "NO")
    for number in range(1, 6):
        (root / "val" / "1e3" / f"{number:03d}.png").unlink()
    return tiny_train(root, tmp_path_factory.mktemp("uneven_run") / "run")


@pytest.mark.promise("N3")
@pytest.mark.parametrize("split", ["val", "test"])
def test_predictions_have_a_row_a_file_and_count_as_the_manifest(tiny_run: Run, split: str) -> None:
    manifest = [row for row in table(tiny_run.folder.manifest) if row["split"] == split]
    folder = tiny_run.folder.evaluation(split)

    rows = table(folder / "predictions.csv")

    assert Counter((row["path"], row["true"]) for row in rows) == Counter(
        (row["path"], row["label"]) for row in manifest
    )
    assert len(rows) == COUNTS[split] * len(CLASSES)
    assert list(rows[0]) == ["path", "true", "predicted", "correct", "confidence"] + [
        f"prob:{name}" for name in ("0", "00", "1e3", "NO")
    ]
    for row in rows:
        probabilities = {name: float(row[f"prob:{name}"]) for name in CLASSES}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert row["predicted"] == max(CLASSES, key=lambda name: probabilities[name])
        assert float(row["confidence"]) == max(probabilities.values())
        assert row["correct"] == str(row["true"] == row["predicted"]).lower()


@pytest.mark.promise("N3")
@pytest.mark.parametrize("split", ["val", "test"])
def test_the_tables_of_an_evaluation_count_the_same(uneven_run: Run, split: str) -> None:
    folder = uneven_run.folder.evaluation(split)
    rows = table(folder / "predictions.csv")
    pairs = Counter((row["true"], row["predicted"]) for row in rows)

    confusion = {
        row.pop("true \\ predicted"): row for row in table(folder / "confusion_matrix.csv")
    }
    classes = {row["class"]: row for row in table(folder / "per_class.csv")}
    metrics = uneven_run.metrics(split)

    assert list(confusion) == list(classes) == metrics["classes"] == list(CLASSES)
    for true in CLASSES:
        for predicted in CLASSES:
            assert int(confusion[true][predicted]) == pairs[true, predicted]
        assert int(classes[true]["support"]) == sum(row["true"] == true for row in rows)
        assert int(classes[true]["predicted"]) == sum(row["predicted"] == true for row in rows)
    assert metrics["images"] == len(rows)
    right = np.mean([row["correct"] == "true" for row in rows])
    assert metrics["metrics"]["acc_top1"]["value"] == pytest.approx(right)
    most = max(Counter(row["true"] for row in rows).values())
    assert metrics["majority_class_accuracy"] == pytest.approx(most / len(rows))


@pytest.mark.promise("D3")
@pytest.mark.promise("N1")
@pytest.mark.parametrize(("split", "absent"), [("val", "00"), ("test", "NO")])
def test_a_class_without_images_has_support_0_and_no_recall_interval(
    uneven_run: Run, split: str, absent: str
) -> None:
    rows = {
        row["class"]: row for row in table(uneven_run.folder.evaluation(split) / "per_class.csv")
    }

    assert rows[absent]["support"] == "0"
    assert rows[absent]["recall_low"] == rows[absent]["recall_high"] == ""
    for name in set(CLASSES) - {absent}:
        low, value, high = (
            float(rows[name][key]) for key in ("recall_low", "recall", "recall_high")
        )
        assert low <= value <= high
        assert int(rows[name]["support"]) > 0


@pytest.mark.promise("N2")
@pytest.mark.parametrize("split", ["val", "test"])
def test_every_headline_metric_is_written_with_its_interval(tiny_run: Run, split: str) -> None:
    content = tiny_run.metrics(split)

    assert content["split"] == split
    assert content["calibrated"] is False
    assert {name: item["method"] for name, item in content["metrics"].items()} == {
        "acc_top1": "wilson",
        "acc_top5": "wilson",
        "acc_macro": "bootstrap",
        "f1_macro": "bootstrap",
        "precision_macro": "bootstrap",
        "loss": "hall",
        "ece": "inversion",
        "auroc_macro": "delong",
    }
    for name, estimate in content["metrics"].items():
        assert estimate["low"] <= estimate["value"] <= estimate["high"], name
        assert estimate["low"] < estimate["high"], name
        assert name == "loss" or 0 <= estimate["low"] <= estimate["high"] <= 1, name
    assert 0 <= content["aurc"] <= 1


@pytest.mark.promise("N2")
def test_a_run_ends_with_its_scores_of_val_and_test(
    tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    show_verdict(tiny_run)

    told = capsys.readouterr().out
    for split in ("val", "test"):
        content = tiny_run.metrics(split)
        line = next(line for line in told.splitlines() if line.startswith(split))
        for name in ("acc_top1", "acc_macro", "f1_macro"):
            found = content["metrics"][name]
            assert f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" in line
        assert str(content["images"]) in line
    assert f"{tiny_run.best_score:.4f}" in told
    assert str(tiny_run.folder.onnx) in told


@pytest.mark.promise("T1")
@pytest.mark.promise("N4")
@pytest.mark.parametrize("ema", [True, False])
def test_validation_forwards_each_image_once_and_evaluate_repeats_its_answers(
    hard_data: Path, tmp_path: Path, ema: bool
) -> None:
    spied = [*spies.use("Forwards"), f"ema.enabled={ema}", "seed=3"]
    run = tiny_train(hard_data, tmp_path / "run", *spied)

    images = dict(spies.Forwards.images)

    trained, validated = COUNTS["train"] * len(CLASSES), COUNTS["val"] * len(CLASSES)
    scored = "ema" if ema else "net"
    assert images == {
        **{("net", "training", epoch): trained for epoch in (0, 1)},
        **{(scored, "validation", epoch): validated for epoch in (0, 1)},
    }
    assert 0.3 < run.best_score < 1  # a score that another network would not have by chance
    best = table(run.folder.history)[run.record["best"]["epoch"]]
    measured = run.metrics("val")["metrics"]
    for name in SCORES:
        estimate = measured[name]
        assert float(best[f"val/{name}"]) == pytest.approx(estimate["value"], abs=1e-6), name


@pytest.mark.promise("N4")
def test_an_evaluation_with_its_confusion_matrix_is_one_pass(tiny_run: Run, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []

    with spies.counted_forwards() as seen:
        evaluate(
            tiny_run.folder.path,
            split="test",
            out=tmp_path / "out",
            batch_size=5,
            workers=0,
            on_images=lambda done, total: progress.append((done, total)),
        )

    assert seen["images"] == COUNTS["test"] * len(CLASSES)
    assert progress == [(5, 16), (10, 16), (15, 16), (16, 16)]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == FILES


@pytest.mark.promise("T1")
@pytest.mark.promise("X3")
@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("workers", [0, 1])
def test_evaluating_again_gives_the_very_files_of_the_run(
    copied_run: Path, split: str, workers: int
) -> None:
    before = digests(copied_run)

    evaluate(copied_run, split=split, batch_size=8, workers=workers)

    assert digests(copied_run) == before


@pytest.mark.promise("T1")
def test_another_batch_size_changes_no_class_and_no_logit_beyond_the_tolerance(
    tiny_run: Run, tmp_path: Path
) -> None:
    found = [
        evaluate(tiny_run.folder.path, split="val", out=tmp_path, batch_size=size, workers=0)
        for size in (1, 7, 100)
    ]

    for other in found[1:]:
        scale = np.maximum(1, np.abs(found[0].logits).max(axis=1))
        assert (np.abs(found[0].logits - other.logits).max(axis=1) <= 1e-5 * scale).all()
        assert (found[0].rows == other.rows).all()
        assert (found[0].logits.argmax(axis=1) == other.logits.argmax(axis=1)).all()


@pytest.mark.promise("C8")
def test_out_is_the_only_place_that_is_written_to(copied_run: Path, tmp_path: Path) -> None:
    before = digests(copied_run)

    evaluate(copied_run, split="train", out=tmp_path / "elsewhere", workers=0)

    assert digests(copied_run) == before
    assert len(table(tmp_path / "elsewhere" / "predictions.csv")) == 48


@pytest.mark.promise("N3")
def test_the_train_split_can_be_evaluated_too(copied_run: Path) -> None:
    found = evaluate(copied_run, split="train", workers=0)

    assert isinstance(found, Evaluation)
    assert found.scores.images == len(table(copied_run / "evaluation/train/predictions.csv")) == 48


@pytest.mark.promise("R5")
def test_a_moved_run_is_evaluated_as_it_is(copied_run: Path, tiny_run: Run) -> None:
    moved = copied_run.rename(copied_run.parent / "moved run")

    found = evaluate(moved, split="val", workers=0, batch_size=8)

    recorded = tiny_run.metrics("val")["metrics"]["f1_macro"]["value"]
    assert found.scores.value("f1_macro") == recorded


@pytest.mark.promise("R5")
@pytest.mark.promise("C5")
def test_moved_data_is_asked_for_and_found(
    copied_run: Path, folder_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((copied_run / "run.json").read_text())
    record["data_root"] = str(tmp_path / "gone")
    (copied_run / "run.json").write_text(json.dumps(record))

    def run(data_root: Path | None) -> int:
        return run_evaluate(
            copied_run,
            split="test",
            out=tmp_path / "out",
            data_root=data_root,
            batch_size=32,
            device="cpu",
            debug=False,
        )

    assert run(None) == DataError.exit_code
    told = capsys.readouterr().err
    assert str(tmp_path / "gone") in told
    assert "--data-root" in told
    assert "Traceback" not in told
    assert run(tmp_path) == DataError.exit_code  # a folder, but not the one
    assert not (tmp_path / "out").exists()
    assert run(folder_data) == 0
    assert len(table(tmp_path / "out" / "predictions.csv")) == 16


@pytest.mark.promise("D4")
def test_an_image_that_vanished_or_broke_is_named(copied_run: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "images")
    broken = data / "test" / "1e3" / "002.png"
    broken.write_bytes(broken.read_bytes()[:100])

    with pytest.raises(DataError, match=r"test/1e3/002\.png"):
        evaluate(copied_run, split="test", data_root=data, workers=0, out=tmp_path / "out")
    broken.unlink()
    with pytest.raises(DataError, match=r"test/1e3/002\.png"):
        evaluate(copied_run, split="test", data_root=data, workers=0, out=tmp_path / "out")

    assert not list((tmp_path / "out").iterdir())


@pytest.mark.promise("C5")
@pytest.mark.parametrize(
    ("case", "error", "says"),
    [
        pytest.param({"split": "tset"}, ConfigError, ["tset", "train, val, test"], id="typo"),
        pytest.param({"device": "gpu0"}, ConfigError, ["gpu0", "--device cpu"], id="device"),
        pytest.param({"device": "xla"}, ConfigError, ["xla", "--device cpu"], id="no such device"),
        pytest.param({"out": "FILE"}, ConfigError, ["FILE", "--out"], id="out is a file"),
        pytest.param({"run": "no-run"}, ResumeError, ["no-run", "run.json"], id="no run"),
        pytest.param({"run": "FILE"}, ResumeError, ["FILE"], id="run is a file"),
        pytest.param({"run": "unfinished"}, ResumeError, ["unfinished", "best.ckpt"], id="no best"),
        pytest.param({"run": "no-test"}, DataError, ["no test", "val 24"], id="empty split"),
        pytest.param({"run": "bad-record"}, ResumeError, ["run.json"], id="damaged run.json"),
        pytest.param({"run": "bad-manifest"}, DataError, ["manifest.csv"], id="damaged manifest"),
        pytest.param({"run": "bad-best"}, ConfigError, ["best.ckpt"], id="damaged checkpoint"),
    ],
)
def test_what_cannot_be_evaluated_is_told_in_three_parts(
    copied_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: dict[str, str],
    error: type[ClassifierTrainingError],
    says: list[str],
) -> None:
    monkeypatch.chdir(copied_run.parent)
    Path("FILE").write_text("x")
    Path("no-run").mkdir()
    if (name := case.get("run", "")).startswith(("unf", "no-t", "bad")):
        folder = copied_run.rename(name)
        manifest, best = folder / "data/manifest.csv", folder / "checkpoints/best.ckpt"
        if name == "unfinished":
            best.unlink()
        elif name == "no-test":
            lines = manifest.read_text().splitlines(keepends=True)
            manifest.write_text("".join(line for line in lines if ",test," not in line))
        elif name == "bad-record":
            (folder / "run.json").write_text("{")
        elif name == "bad-manifest":
            manifest.write_text("path,label\na,b\n")
        else:
            best.write_bytes(best.read_bytes()[:1000])

    code = run_evaluate(
        Path(case.get("run", copied_run)),
        split=case.get("split", "test"),
        out=Path(case["out"]) if "out" in case else None,
        data_root=None,
        batch_size=32,
        device=case.get("device", "cpu"),
        debug=False,
    )

    told = capsys.readouterr().err
    assert code == error.exit_code
    for part in (*says, "error: ", "expected: ", "fix: "):
        assert part in told
    assert "Traceback" not in told


@pytest.mark.promise("C5")
def test_python_callers_get_the_same_refusals(tiny_run: Run, tmp_path: Path) -> None:
    path = tiny_run.folder.path

    with pytest.raises(DataError, match="tset"):
        classifier_training.evaluate(path, split="tset")
    with pytest.raises(ConfigError, match="nonsense"):
        classifier_training.evaluate(path, device="nonsense")
    with pytest.raises(ResumeError, match=r"run\.json"):
        classifier_training.evaluate(tmp_path)
    with pytest.raises(DataError, match="evaluate"):
        tiny_run.metrics("train")


@pytest.mark.promise("T1")
def test_a_best_checkpoint_of_another_epoch_is_not_exported(
    hard_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    with pytest.raises(ExportError, match="reloaded best checkpoint"):
        tiny_train(
            hard_data,
            out,
            *spies.use("SwapBest"),
            "checkpoint.save_top_k=2",
            "optimizer.learning_rate=0.02",
            "seed=3",
            "ema.enabled=false",
        )

    assert not (out / "model.onnx").exists()
    assert json.loads((out / "run.json").read_text())["status"] == "failed"


@pytest.mark.promise("T1")
@pytest.mark.promise("D8")
def test_evaluation_reads_pixels_and_not_names_or_order(tiny_run: Run, tmp_path: Path) -> None:
    """Images of other classes under the old names: the answers follow the pixels."""
    data = write_folder(tmp_path / "images")
    for position, name in enumerate(CLASSES):
        other = (position + 1) % len(CLASSES)
        for number in range(COUNTS["test"]):
            seed = number + 1000 * list(COUNTS).index("test")
            class_image(other, seed).save(data / "test" / name / f"{number:03d}.png")

    found = evaluate(tiny_run.folder.path, split="test", data_root=data, out=tmp_path / "out")

    recorded = table(tiny_run.folder.evaluation("test") / "predictions.csv")
    answers = {row["path"]: row["predicted"] for row in recorded}
    for row in table(tmp_path / "out" / "predictions.csv"):
        _, name, file = row["path"].split("/")
        other = CLASSES[(CLASSES.index(name) + 1) % len(CLASSES)]
        assert row["predicted"] == answers[f"test/{other}/{file}"]
    assert found.scores.images == 16


@pytest.mark.promise("X3")
def test_scoring_leaves_no_gradients_and_no_training_mode(tiny_run: Run, tmp_path: Path) -> None:
    modes: list[bool] = []

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(module, nn.BatchNorm2d):
            modes.append(module.training or torch.is_grad_enabled())

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        evaluate(tiny_run.folder.path, split="test", out=tmp_path, workers=0)
    finally:
        handle.remove()

    assert modes
    assert not any(modes)


@pytest.mark.promise("D2")
@pytest.mark.promise("S2")
@pytest.mark.promise("X5")
def test_odd_class_names_are_the_same_in_every_table(tmp_path: Path) -> None:
    classes = ("=1+1", "a,b", 'say "no"', "00", "\N{CAT FACE}", " null")
    data = write_folder(tmp_path / "images", classes=classes)

    run = tiny_train(data, tmp_path / "run", "trainer.max_epochs=1")

    for split in ("val", "test"):
        folder = run.folder.evaluation(split)
        predictions = table(folder / "predictions.csv")
        assert {row["true"] for row in predictions} == set(classes)
        assert {row["path"].split("/")[1] for row in predictions} == set(classes)
        assert [key for key in predictions[0] if key.startswith("prob:")] == [
            f"prob:{name}" for name in sorted(classes)
        ]
        assert [row["class"] for row in table(folder / "per_class.csv")] == sorted(classes)
        confusion = table(folder / "confusion_matrix.csv")
        assert [row["true \\ predicted"] for row in confusion] == sorted(classes)
        assert run.metrics(split)["classes"] == sorted(classes)
    assert list(json.loads(run.folder.sidecar.read_text())["class_to_idx"]) == sorted(classes)
    assert classifier_training.Predictor.load(run.folder.path).class_map.names == tuple(
        sorted(classes)
    )
