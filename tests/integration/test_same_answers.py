"""Training, ``evaluate``, ``predict`` and the ONNX file give one answer for every image."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from classifier_training.cli.console import set_up_logging
from classifier_training.cli.verify import run_verify
from classifier_training.evaluation.evaluate import evaluate
from classifier_training.inference.images import read_image
from classifier_training.inference.predictor import Predictor
from classifier_training.run.reader import Run
from tests.helpers import spies
from tests.helpers.data import CLASSES, COUNTS
from tests.helpers.hard_data import write_hard_folder
from tests.helpers.predicting import predict
from tests.helpers.runs import tiny_train

SPLITS = ("val", "test")
RESNET = ("model.name=resnet18", "transforms.image_size=64", "trainer.max_epochs=1")
BF16 = "trainer.precision=bf16-mixed"
VARIANTS = {
    "tiny": ("ema.enabled=true",),
    "tiny raw, bf16 training, padded": ("ema.enabled=false", BF16, "transforms.resize=pad"),
    "resnet18 cropped": (*RESNET, "transforms.resize=crop"),
}
SLOW_VARIANTS = {
    "resnet18 raw": (*RESNET, "ema.enabled=false"),
    "resnet18 bf16 training": (*RESNET, BF16, "model.channels_last=true"),
    "tiny raw": ("ema.enabled=false",),
}


@dataclass
class Answers:
    """A run and the logits that its training saw in the best epoch, by manifest index."""

    run: Run
    data: Path
    in_training: dict[int, npt.NDArray[np.float32]]


@pytest.fixture(autouse=True)
def _log_sink() -> Iterator[None]:
    """Commands send the log to the stderr of the moment, which pytest closes after the test."""
    yield
    set_up_logging(debug=False)


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param(given, id=name) for name, given in VARIANTS.items()),
        *(
            pytest.param(given, id=name, marks=pytest.mark.slow)
            for name, given in SLOW_VARIANTS.items()
        ),
    ],
)
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    base = tmp_path_factory.mktemp("answers")
    data = write_hard_folder(base / "images")
    overrides = [*spies.use("ValidationLogits"), *request.param, "seed=5"]
    run = tiny_train(data, base / "run", *overrides)
    best = spies.ValidationLogits.epochs[run.record["best"]["epoch"]]
    return Answers(run, data, dict(best))


def assert_same(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> None:
    """Hold two logits of one image against the words of the design, one by one."""
    largest = max(1.0, float(np.abs(left).max()))
    assert float(np.abs(left.astype(float) - right).max()) <= 1e-5 * largest
    first, second = np.sort(left)[::-1][:2]
    if first - second >= 1e-5 * largest:
        assert int(left.argmax()) == int(right.argmax())


def recorded(run: Run, split: str) -> list[dict[str, str]]:
    path = run.folder.evaluation(split) / "predictions.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.promise("T1")
def test_the_reloaded_checkpoint_answers_as_the_best_epoch_did(
    answers: Answers, tmp_path: Path
) -> None:
    found = evaluate(answers.run.folder.path, split="val", out=tmp_path, workers=0)

    assert sorted(answers.in_training) == found.rows.tolist()
    for row, logits in zip(found.rows, found.logits, strict=True):
        assert_same(answers.in_training[int(row)], logits)
    assert answers.run.best_score == pytest.approx(found.scores.value("f1_macro"), abs=1e-9)


@pytest.mark.promise("T1")
@pytest.mark.promise("X3")
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("batch", [1, 2, 32])
def test_the_onnx_file_answers_as_evaluate_does(
    answers: Answers, tmp_path: Path, split: str, batch: int
) -> None:
    path = answers.run.folder.path
    torch_side = evaluate(path, split=split, out=tmp_path, workers=0)
    predictor = Predictor.load(path)
    files = [answers.data / row["path"] for row in recorded(answers.run, split)]
    pixels = np.stack([predictor.spec.resize_image(read_image(file)) for file in files])

    found = np.concatenate(
        [predictor.logits(pixels[at : at + batch]) for at in range(0, len(pixels), batch)]
    )

    assert found.shape == torch_side.logits.shape == (COUNTS[split] * len(CLASSES), len(CLASSES))
    for left, right in zip(torch_side.logits, found, strict=True):
        assert_same(left, right)


@pytest.mark.promise("X3")
@pytest.mark.parametrize("split", SPLITS)
def test_predict_writes_what_evaluate_recorded(
    answers: Answers, tmp_path: Path, split: str
) -> None:
    out = tmp_path / "predictions.csv"

    assert predict(answers.run.folder.path, answers.data / split, out=out, batch_size=5) == 0

    with out.open(newline="", encoding="utf-8") as file:
        found = {Path(row["path"]): row for row in csv.DictReader(file)}
    expected = {answers.data / row["path"]: row for row in recorded(answers.run, split)}
    assert found.keys() == expected.keys()
    for path, row in found.items():
        assert row["predicted"] == expected[path]["predicted"]
        for name in CLASSES:
            probability = float(expected[path][f"prob:{name}"])
            assert float(row[f"prob:{name}"]) == pytest.approx(probability, abs=2e-5)


@pytest.mark.promise("X3")
@pytest.mark.parametrize("split", SPLITS)
def test_the_predictor_in_python_answers_the_same(answers: Answers, split: str) -> None:
    rows = recorded(answers.run, split)
    predictor = Predictor.load(answers.run.folder.onnx)

    found = list(predictor.predict(answers.data / row["path"] for row in rows))

    assert [item.label for item in found] == [row["predicted"] for row in rows]
    for item, row in zip(found, rows, strict=True):
        assert item.confidence == pytest.approx(float(row["confidence"]), abs=2e-5)


@pytest.mark.promise("X1")
@pytest.mark.promise("X3")
def test_verify_reads_every_recorded_image_and_agrees(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_verify(answers.run.folder.path, backend="pil", data=None, debug=False)

    told = capsys.readouterr().err
    assert code == 0
    for split in SPLITS:
        assert f"{split}: all {COUNTS[split] * len(CLASSES)} images" in told
