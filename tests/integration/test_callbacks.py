"""What each callback writes is what happened, and none of them changes what happens."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from loguru import logger
from PIL import Image

from classifier_training.callbacks import sample_visualization, training_history
from classifier_training.callbacks.gradient_monitor import GradientMonitor
from classifier_training.data.dataset import TrainingDataset
from classifier_training.errors import ExportError, InterruptedRunError
from classifier_training.inference.predictor import Predictor
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import read_history
from classifier_training.training.trainer import build_callbacks
from tests.helpers import spies
from tests.helpers.checkpoints import differences, read, training_state
from tests.helpers.config import config_of
from tests.helpers.data import CLASSES, COUNTS
from tests.helpers.hard_data import write_hard_folder
from tests.helpers.observers import Watch, use
from tests.helpers.runs import tiny_train
from tests.helpers.tiny import TinyNet
from tests.helpers.training import module_of, parts_of, tiny_config, train_only

VAL = COUNTS["val"] * len(CLASSES)
TRAIN = COUNTS["train"] * len(CLASSES)
OFF = [
    f"callbacks.{name}=null"
    for name in (
        "confusion_matrix", "model_info", "sample_visualization", "training_history",
        "throughput", "gradient_monitor", "learning_rate_monitor",
    )
]  # fmt: skip


def only(*names: str) -> list[str]:
    """Return the overrides that leave some of the callbacks on, and no others of these."""
    return [item for item in OFF if item.split(".")[1].removesuffix("=null") not in names]


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Whatever is logged, a text a message."""
    lines: list[str] = []
    logger.add(
        lambda message: lines.append(str(message)), format="{level}|{message}", diagnose=False
    )
    yield lines
    logger.remove()


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hard_folder(tmp_path_factory.mktemp("hard") / "images")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def matrix(path: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert header[1:] == [row[0] for row in rows]
    return header[1:], np.array([[int(cell) for cell in row[1:]] for row in rows])


@pytest.mark.promise("N8")
@pytest.mark.promise("R6")
@pytest.mark.promise("T10")
def test_a_run_with_all_callbacks_is_bit_equal_to_one_with_none(hard: Path, tmp_path: Path) -> None:
    given = ("model.name=dropout", "trainer.log_every_n_steps=1")
    with_none = train_only(hard, tmp_path / "none", "callbacks=none", *given)

    with_all = train_only(hard, tmp_path / "all", *given, drawn=True)

    states = [training_state(folder.last) for folder in (with_none, with_all)]
    for state in states:
        for name in list(state["callbacks"]):
            if "EarlyStopping" in name:  # changes nothing in two epochs, but counts
                del state["callbacks"][name]
    assert differences(*states) == []
    assert differences(read(with_none.last)["ranks"], read(with_all.last)["ranks"]) == []
    assert with_none.history.read_bytes() == with_all.history.read_bytes()
    written = {path.relative_to(with_all.path).as_posix() for path in with_all.plots.rglob("*.*")}
    assert {
        "plots/history.png", "plots/throughput.csv", "plots/gradients.csv",
        "plots/confusion_matrix/epoch=0001.csv", "plots/confusion_matrix/epoch=0001.png",
        "plots/confusion_matrix/epoch=0001-normalised.png", "plots/samples/epoch=0001.png",
    } <= written  # fmt: skip
    assert with_all.model_info.exists()


@pytest.mark.promise("N4")
def test_all_callbacks_together_forward_no_image_a_second_time(hard: Path, tmp_path: Path) -> None:
    with spies.counted_forwards() as seen:
        train_only(hard, tmp_path / "run", "callbacks.model_info=null", *spies.use("Forwards"),
                   drawn=True)  # fmt: skip

    images = dict(spies.Forwards.images)
    assert images == {
        **{("net", "training", epoch): TRAIN for epoch in (0, 1)},
        **{("ema", "validation", epoch): VAL for epoch in (0, 1)},
    }
    assert seen["images"] == 2 * (TRAIN + VAL), "nor does a copy of the network"


@pytest.mark.promise("R6")
def test_a_callback_that_cannot_write_changes_nothing_and_says_so_once(
    hard: Path, tmp_path: Path, log: list[str]
) -> None:
    plain = train_only(hard, tmp_path / "plain", "callbacks=none", "trainer.log_every_n_steps=1")
    blocked = tmp_path / "blocked"
    (blocked / "model_info.json").mkdir(parents=True)
    (blocked / "plots").write_text("a file where a folder should be")

    folder = train_only(hard, blocked, "trainer.log_every_n_steps=1", drawn=True)

    assert differences(read(plain.last)["state_dict"], read(folder.last)["state_dict"]) == []
    assert plain.history.read_text() == folder.history.read_text()
    for name in (
        "ConfusionMatrix", "GradientMonitor", "ModelInfo", "SampleVisualization", "Throughput",
        "TrainingHistory",
    ):  # fmt: skip
        assert sum(line.startswith(f"ERROR|{name} failed in") for line in log) == 1, name


@pytest.mark.promise("C2")
def test_each_callback_is_switched_off_by_one_override() -> None:
    names = list(config_of("data.data_root=/images").callbacks)
    everything = {type(item) for item in build_callbacks(config_of("data.data_root=/images"))}
    assert len(everything) == len(names)

    for name in names:
        config = config_of("data.data_root=/images", f"callbacks.{name}=null")
        left = {type(item) for item in build_callbacks(config)}
        assert len(everything - left) == 1, name
        assert name.replace("_", "") == (everything - left).pop().__name__.lower()


# ---------------------------------------------------------------- ConfusionMatrix


@pytest.mark.promise("N8")
def test_each_matrix_counts_every_image_of_its_epoch(
    hard: Path, tmp_path: Path, log: list[str]
) -> None:
    folder = train_only(
        hard, tmp_path / "run", "seed=3", "trainer.max_epochs=3", *spies.use("ValidationLogits"),
        *only("confusion_matrix"), drawn=True,
    )  # fmt: skip

    labels = parts_of(tiny_config(hard)).data.manifest.labels
    for epoch, answers in spies.ValidationLogits.epochs.items():
        expected = np.zeros((4, 4), dtype=np.int64)
        for index, logits in answers.items():
            expected[labels[index], logits.argmax()] += 1
        names, found = matrix(folder.plots / "confusion_matrix" / f"epoch={epoch:04d}.csv")
        assert names == list(CLASSES)
        assert found.tolist() == expected.tolist()
        assert found.sum() == VAL
        assert 0 < np.trace(found) < VAL, "the test needs mistakes"
        errors = found - np.diag(np.diag(found))
        true, predicted = np.unravel_index(errors.argmax(), errors.shape)
        worst = int(errors.max())
        said = next(line for line in log if f"confusion: epoch {epoch + 1}:" in line)
        assert f"{worst} of {COUNTS['val']} times" in said.partition(",")[0]
        if (errors == worst).sum() == 1:
            assert (
                f"{CLASSES[true]!r} predicted as {CLASSES[predicted]!r}" in said.partition(",")[0]
            )
    assert len(spies.ValidationLogits.epochs) == 3


@pytest.mark.promise("N8")
def test_pictures_of_the_newest_epochs_and_of_the_best_stay(hard: Path, tmp_path: Path) -> None:
    folder = train_only(
        hard, tmp_path / "run", "seed=3", "trainer.max_epochs=5",
        "callbacks.confusion_matrix.keep=2", "callbacks.sample_visualization.keep=1",
        *only("confusion_matrix", "sample_visualization"), drawn=True,
    )  # fmt: skip

    best = read(folder.best)["epoch"]
    matrices = folder.plots / "confusion_matrix"
    assert {path.name for path in matrices.glob("*.png")} == {
        f"epoch={epoch:04d}{kind}.png" for epoch in {3, 4, best} for kind in ("", "-normalised")
    }
    assert len(list(matrices.glob("*.csv"))) == 5
    samples = {path.name for path in (folder.plots / "samples").iterdir()}
    assert samples == {f"epoch={epoch:04d}.png" for epoch in {4, best}}
    assert best < 3, "the test needs a best epoch that is not among the newest"


@pytest.mark.slow
@pytest.mark.promise("N8")
def test_with_two_processes_the_matrix_counts_the_images_of_both(
    hard: Path, tmp_path: Path
) -> None:
    command = [
        f"data.data_root={hard}", f"hydra.run.dir={tmp_path / 'run'}", "model.weights=null",
        "transforms.image_size=32", "data.batch_size=8", "data.num_workers=0", "trainer=ddp",
        "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=1",
        "trainer.precision=32-true",
    ]  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "tests.helpers.cli", "train", "model.name=tiny", *command],
        check=True, timeout=280, cwd=Path(__file__).parents[2],
    )  # fmt: skip

    _, found = matrix(tmp_path / "run" / "plots" / "confusion_matrix" / "epoch=0000.csv")
    assert found.sum(axis=1).tolist() == [COUNTS["val"]] * 4


# ---------------------------------------------------------------- SampleVisualization


@pytest.mark.promise("N8")
def test_samples_are_the_same_each_epoch_and_the_worst_are_the_confident_mistakes(
    hard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        sample_visualization, "draw_samples", lambda parts, path: drawn.append(parts)
    )

    train_only(
        hard, tmp_path / "run", "seed=3", "callbacks.sample_visualization.samples=6",
        "callbacks.sample_visualization.worst=3", *only("sample_visualization"),
        *spies.use("ValidationLogits"), drawn=True,
    )  # fmt: skip

    manifest = parts_of(tiny_config(hard)).data.manifest
    spec = PreprocessSpec(32, "squash", (0, 0, 0), (1, 1, 1))
    pixels = {
        spec.load(manifest.file(row).read_bytes(), "").tobytes(): row
        for row in manifest.rows("val").tolist()
    }
    assert len(pixels) == VAL, "each file has its own pixels"
    shown = [[pixels[sample.pixels.tobytes()] for sample in part[0][1]] for part in drawn]
    assert len(shown) == 2
    assert shown[0] == shown[1]
    assert sorted(np.bincount(manifest.labels[shown[0]], minlength=4)) == [1, 1, 2, 2]
    for epoch, ((_, fixed), (_, worst)) in enumerate(drawn):
        answers = spies.ValidationLogits.epochs[epoch]
        sure = {
            row: float(torch.from_numpy(logits).double().softmax(0).max())
            for row, logits in answers.items()
        }
        wrong = [row for row in sure if answers[row].argmax() != manifest.labels[row]]
        expected = sorted(wrong, key=lambda row: -sure[row])[:3]
        assert [pixels[sample.pixels.tobytes()] for sample in worst] == expected
        assert len(expected) == 3, "the test needs mistakes"
        for sample in (*fixed, *worst):
            row = pixels[sample.pixels.tobytes()]
            assert sample.true == CLASSES[manifest.labels[row]]
            assert sample.predicted == CLASSES[int(answers[row].argmax())]
            assert sample.confidence == pytest.approx(sure[row], abs=1e-6)


def test_samples_are_drawn_every_so_many_epochs_and_the_last(hard: Path, tmp_path: Path) -> None:
    folder = train_only(
        hard, tmp_path / "run", "trainer.max_epochs=4", "callbacks.sample_visualization.keep=9",
        "callbacks.sample_visualization.every_n_epochs=2", *only("sample_visualization"),
        drawn=True,
    )  # fmt: skip

    names = sorted(path.name for path in (folder.plots / "samples").iterdir())
    assert names == ["epoch=0000.png", "epoch=0002.png", "epoch=0003.png"]
    with Image.open(folder.plots / "samples" / names[0]) as picture:
        assert picture.format == "PNG"


# ---------------------------------------------------------------- TrainingHistory


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[dict[str, float]], int]]:
    """The rows and best epoch of each drawing, which takes place besides."""
    seen: list[tuple[list[dict[str, float]], int]] = []
    draw = training_history.draw_history

    def noted(rows: list[dict[str, float]], best: int, monitor: str, path: Path) -> None:
        seen.append((list(rows), best))
        draw(rows, best, monitor, path)

    monkeypatch.setattr(training_history, "draw_history", noted)
    return seen


@pytest.mark.promise("N8")
def test_the_history_ends_with_the_last_epoch(hard: Path, tmp_path: Path, curves: Any) -> None:
    folder = train_only(
        hard, tmp_path / "run", "trainer.max_epochs=3", "ema.score_raw=true",
        *only("training_history"), drawn=True,
    )  # fmt: skip

    assert [[row["epoch"] for row in rows] for rows, _ in curves] == [[0], [0, 1], [0, 1, 2]]
    rows, best = curves[-1]
    assert rows == read_history(folder.history)
    assert {"train/loss", "val/loss", "val_raw/loss", "lr"} <= rows[-1].keys()
    assert best == read(folder.best)["epoch"]
    assert (folder.plots / "history.png").exists()


@pytest.mark.promise("N8")
@pytest.mark.promise("R1")
@pytest.mark.parametrize(
    "place",
    [{"hook": "batch_start", "epoch": 1, "batch": 2}, {"hook": "epoch_end", "epoch": 1},
     {"hook": "epoch_end", "epoch": 2}],
    ids=["inside an epoch", "after an epoch", "after the last"],
)  # fmt: skip
def test_a_run_that_was_cut_has_the_curves_and_tables_of_all_its_epochs(
    place: dict[str, Any], hard: Path, tmp_path: Path, curves: Any
) -> None:
    watched = ("training_history", "throughput", "gradient_monitor", "confusion_matrix",
               "sampler_distribution")  # fmt: skip
    given = ("trainer.max_epochs=3", "trainer.log_every_n_steps=1", "data.sampler=weighted",
             *only(*watched))  # fmt: skip
    whole = train_only(hard, tmp_path / "whole", *given, drawn=True)
    expected = curves[-1]
    kill = use("Kill", marker=tmp_path / "killed", **place)
    with pytest.raises(InterruptedRunError):
        train_only(hard, tmp_path / "cut", *given, *kill, drawn=True)
    (tmp_path / "cut" / "plots" / "history.png").unlink(missing_ok=True)
    curves.clear()

    cut = train_only(hard, tmp_path / "cut", *given, *kill, drawn=True)

    assert curves[-1] == expected
    assert (cut.plots / "history.png").read_bytes() == (whole.plots / "history.png").read_bytes()
    for name in ("sampler_distribution.png", "sampler_distribution.csv"):
        assert (cut.plots / name).read_bytes() == (whole.plots / name).read_bytes()
    assert (cut.plots / "gradients.csv").read_text() == (whole.plots / "gradients.csv").read_text()
    assert [row["epoch"] for row in table(cut.plots / "throughput.csv")] == ["0", "1", "2"]
    for path in sorted((whole.plots / "confusion_matrix").iterdir()):
        assert (cut.plots / "confusion_matrix" / path.name).read_bytes() == path.read_bytes()


# ---------------------------------------------------------------- ModelInfo


def test_the_model_is_described(folder_data: Path, tmp_path: Path, log: list[str]) -> None:
    torch.save(TinyNet().state_dict(), tmp_path / "weights.pt")

    folder = train_only(
        folder_data, tmp_path / "run", "trainer.max_epochs=1", "model.freeze=true",
        f"model.weights={tmp_path / 'weights.pt'}", *only("model_info"), drawn=True,
    )  # fmt: skip

    info = json.loads(folder.model_info.read_text())
    convolutions, norms, head = 3 * 9 * 8 + 8 * 9 * 16, 2 * (8 + 16), 16 * 4 + 4
    latency = info.pop("latency_ms")
    assert info == {
        "schema_version": 1,
        "architecture": "tiny",
        "parameters": convolutions + norms + head,
        "trainable_parameters": head,
        # With BatchNorm's running statistics, and its two counters of 8 bytes.
        "weights_bytes": 4 * (convolutions + 2 * norms + head) + 16,
        # By hand: two a multiplication, at 16 x 16 and 8 x 8 places.
        "flops_per_image": 2 * (3 * 9 * 8 * 256 + 8 * 9 * 16 * 64 + 16 * 4),
        "input_shape": [1, 3, 32, 32],
    }
    assert (latency["device"], latency["batch"], latency["threads"]) == ("cpu", 1, 1)
    assert 1 <= latency["runs"] <= 30
    assert 0 < latency["p50"] <= latency["p95"]
    assert sum("model: tiny, " in line for line in log) == 1


# ---------------------------------------------------------------- Throughput


def _slow_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    read_image = TrainingDataset._image

    def slowly(self: TrainingDataset, draw: Any) -> torch.Tensor:
        import time

        time.sleep(0.03)
        return read_image(self, draw)

    monkeypatch.setattr(TrainingDataset, "_image", slowly)


@pytest.mark.promise("N8")
def test_waiting_for_data_is_told_from_computing_and_advice_is_given(
    hard: Path, tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("data.batch_size=4", "trainer.max_epochs=1", "data.cache=none", *only("throughput"))
    slow_step = use("Sleep", seconds=0.2)
    busy = train_only(hard, tmp_path / "busy", *given, *slow_step, drawn=True)
    log.clear()  # on a busy machine even that may have waited for a quarter of the time
    _slow_reading(monkeypatch)
    waiting = train_only(hard, tmp_path / "waiting", *given, drawn=True)

    for row in table(busy.plots / "throughput.csv"):
        assert float(row["data_wait_share"]) < 0.5
        assert float(row["step_s"]) > 12 * 0.2
    rows = table(waiting.plots / "throughput.csv")
    assert [row["epoch"] for row in rows] == ["0"]
    for row in rows:
        assert int(row["images"]) == TRAIN
        assert float(row["data_wait_share"]) > 0.5
        assert float(row["data_wait_s"]) > 11 * 4 * 0.03
        parts = sum(float(row[name]) for name in ("data_wait_s", "step_s", "first_wait_s"))
        assert float(row["seconds"]) == pytest.approx(parts, rel=1e-4)
        assert float(row["images_per_s"]) == pytest.approx(TRAIN / parts, rel=1e-4)
    said = [line for line in log if "throughput:" in line]
    assert len(said) == 1, "once a run"
    for key in ("data.num_workers (now 0)", "data.cache (now none)", "transforms.train"):
        assert key in said[0]
    assert "throughput" not in waiting.history.read_text()


# ---------------------------------------------------------------- GradientMonitor


@pytest.mark.promise("T9")
@pytest.mark.promise("N8")
def test_the_gradient_norm_is_that_before_clipping(hard: Path, tmp_path: Path) -> None:
    given = ("trainer.log_every_n_steps=1", "trainer.max_epochs=1", *only("gradient_monitor"))
    free = train_only(hard, tmp_path / "free", *given, "trainer.gradient_clip_val=null",
                      *use("Watch"), drawn=True)  # fmt: skip
    expected = [
        math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
        for gradients in Watch.seen["gradients"]
    ]
    clipped = train_only(hard, tmp_path / "clipped", *given, "trainer.gradient_clip_val=0.01",
                         drawn=True)  # fmt: skip

    rows = table(free.plots / "gradients.csv")
    assert [row["step"] for row in rows] == [str(step) for step in range(6)]
    found = [float(row["gradient_norm"]) for row in rows]
    assert found == pytest.approx(expected, rel=1e-6)
    first = table(clipped.plots / "gradients.csv")[0]
    assert float(first["gradient_norm"]) == pytest.approx(expected[0], rel=1e-6)
    assert expected[0] > 0.1
    assert {row["scale"] for row in rows} == {""}


def test_gradients_are_measured_every_so_many_steps(hard: Path, tmp_path: Path) -> None:
    folder = train_only(
        hard, tmp_path / "run", "trainer.log_every_n_steps=5", *only("gradient_monitor"),
        drawn=True,
    )  # fmt: skip

    steps = [(row["step"], row["epoch"]) for row in table(folder.plots / "gradients.csv")]
    assert steps == [("4", "0"), ("9", "1")]


@pytest.mark.promise("N8")
def test_an_exploding_gradient_is_warned_of_once(
    hard: Path, tmp_path: Path, log: list[str]
) -> None:
    given = ("trainer.log_every_n_steps=1", *only("gradient_monitor"))
    train_only(hard, tmp_path / "calm", *given, drawn=True)
    assert not any("gradients:" in line for line in log)

    train_only(hard, tmp_path / "run", *given, *use("Amplify", step=9, factor=1e5), drawn=True)

    said = [line for line in log if "gradients:" in line]
    assert len(said) == 1
    assert said[0].startswith("WARNING|gradients: the norm is ")
    assert "at step 9," in said[0]


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
@pytest.mark.promise("T5")
def test_the_scale_and_the_skipped_steps_of_the_scaler_are_written(
    folder_data: Path, tmp_path: Path, log: list[str]
) -> None:
    parts = parts_of(tiny_config(folder_data))
    module = module_of(parts)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26, backoff_factor=2.0**-4)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        log_every_n_steps=1,
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        callbacks=[GradientMonitor(50.0)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )

    trainer.fit(module, parts.data)

    rows = table(RunFolder(tmp_path).plots / "gradients.csv")
    skipped = [int(row["skipped_steps"]) for row in rows]
    assert skipped[-1] == module.skipped_steps > 0
    for number, row in enumerate(rows):
        was_skipped = skipped[number] > (skipped[number - 1] if number else 0)
        assert math.isfinite(float(row["gradient_norm"])) != was_skipped
        assert float(row["scale"]) == 2.0 ** (26 - 4 * skipped[number])
    assert not any("gradients: the norm" in line for line in log), "an overflow is no explosion"


# ---------------------------------------------------------------- loggers


@pytest.mark.promise("N8")
def test_rates_speed_and_gradients_reach_the_loggers_at_their_steps(
    hard: Path, tmp_path: Path
) -> None:
    logging = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path)}
    train_only(
        hard, tmp_path / "run", "trainer.log_every_n_steps=2",
        *(f"logging.csv.{key}={value}" for key, value in logging.items()),
        "logging.csv.name=logs", "logging.csv.version=''", *use("Watch"),
        *only("gradient_monitor", "learning_rate_monitor", "throughput"), drawn=True,
    )  # fmt: skip

    rows = table(tmp_path / "logs" / "metrics.csv")

    def logged(name: str) -> dict[int, float]:
        return {int(row["step"]): float(row[name]) for row in rows if row[name]}

    rates = Watch.seen["lr"]
    assert logged("lr/backbone") == {step: rates[step][0] for step in (1, 3, 5, 7, 9, 11)}
    assert logged("lr/head").keys() == {1, 3, 5, 7, 9, 11}
    norms = table(tmp_path / "run" / "plots" / "gradients.csv")
    assert logged("gradients/gradient_norm") == pytest.approx(
        {int(row["step"]): float(row["gradient_norm"]) for row in norms}, rel=1e-5
    )
    assert logged("train/loss_step").keys() == logged("lr/backbone").keys(), "one axis"
    assert logged("throughput/images_per_s").keys() == {5, 11}, "the last step of each epoch"
    assert logged("val/loss").keys() == {6, 12}, "steps done, as in metrics.csv"


@pytest.mark.promise("N8")
def test_with_accumulation_a_rate_is_logged_once_a_step(folder_data: Path, tmp_path: Path) -> None:
    logging = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path)}
    train_only(
        folder_data, tmp_path / "run", "trainer.log_every_n_steps=1", "trainer.max_epochs=1",
        "trainer.accumulate_grad_batches=4", "data.batch_size=8",
        *(f"logging.csv.{key}={value}" for key, value in logging.items()),
        "logging.csv.name=logs", "logging.csv.version=''", *use("Watch"),
        *only("learning_rate_monitor"), drawn=True,
    )  # fmt: skip

    rows = table(tmp_path / "logs" / "metrics.csv")
    rates = [(int(row["step"]), float(row["lr/head"])) for row in rows if row.get("lr/head")]
    # Six batches: a step after four, and one after the two that are left.
    assert rates == [(step, Watch.seen["lr"][step][0]) for step in (0, 1)]


@pytest.mark.promise("C7")
def test_the_speed_that_is_printed_is_that_of_training(
    folder_data: Path, tmp_path: Path, log: list[str]
) -> None:
    """Steps of a twentieth of a second and eight images."""
    train_only(
        folder_data, tmp_path / "run", "trainer.max_epochs=1",
        "callbacks.progress.line_every_s=0.0", *use("Sleep", seconds=0.05),
    )  # fmt: skip

    speeds = [int(found) for line in log for found in re.findall(r"(\d+) img/s", line)]
    assert speeds
    assert all(20 < speed <= 160 for speed in speeds)


# ---------------------------------------------------------------- ONNXExport


@pytest.mark.promise("X1")
def test_an_epoch_is_exported_as_the_best_one_is(hard: Path, tmp_path: Path) -> None:
    given = ("model.name=dropout", "trainer.max_epochs=1")
    plain = train_only(hard, tmp_path / "plain", *given)

    run = tiny_train(hard, tmp_path / "run", *given, "callbacks.onnx_export.every_n_epochs=1")

    folder = run.folder.exports / "epoch=0000"
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "labels_mapping.json"}
    early, final = Predictor.load(folder), Predictor.load(run.folder.path)
    images = sorted((hard / "val").rglob("*.png"))
    for first, second in zip(early.predict(images), final.predict(images), strict=True):
        assert first.label == second.label
        assert np.array_equal(first.probabilities, second.probabilities)
    assert differences(read(plain.last)["state_dict"], read(run.folder.last)["state_dict"]) == []
    assert differences(read(plain.last)["ranks"], read(run.folder.last)["ranks"]) == []


@pytest.mark.promise("X1")
def test_an_export_that_fails_stops_the_run_and_leaves_no_file(hard: Path, tmp_path: Path) -> None:
    spies.register_faulty()

    with pytest.raises(ExportError, match="onnxruntime does not reproduce torch"):
        tiny_train(
            hard, tmp_path / "run", "model.name=lies", "trainer.max_epochs=3",
            "callbacks.onnx_export.every_n_epochs=2",
        )  # fmt: skip

    folder = RunFolder(tmp_path / "run")
    assert [row["epoch"] for row in read_history(folder.history)] == [0], "at the second epoch"
    assert not list(folder.exports.rglob("*.*"))
    assert not folder.onnx.exists()
