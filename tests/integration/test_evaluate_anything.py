"""``evaluate`` on runs, ONNX files and data of no run: one answer, told with its slices."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from classifier_training.cli.main import app
from classifier_training.errors import ConfigError, DataError
from classifier_training.evaluation.evaluate import Evaluation, evaluate
from classifier_training.evaluation.slices import IMAGE_SIZE
from classifier_training.run.reader import Run
from tests.helpers.data import CLASSES, COUNTS
from tests.helpers.hard_data import write_hard_folder
from tests.helpers.runs import tiny_train


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    base = tmp_path_factory.mktemp("hard")
    data = write_hard_folder(base / "images")
    return tiny_train(data, base / "run", "seed=5"), data


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def listed(data: Path, **facts: list[str]) -> Path:
    """List the test images in a JSONL file beside them, with further facts of each."""
    files = sorted((data / "test").glob("*/*.png"))
    rows = [
        {
            "image": path.relative_to(data).as_posix(),
            "suffix": path.parent.name,
            **{key: values[position] for key, values in facts.items()},
        }
        for position, path in enumerate(files)
    ]
    out = data / "listed.jsonl"
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


@pytest.mark.promise("X3")
@pytest.mark.promise("N3")
def test_checkpoint_run_and_bare_onnx_agree_image_by_image(
    hard: tuple[Run, Path], tmp_path: Path
) -> None:
    run, data = hard
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run.folder.onnx, bare)
    shutil.copy(run.folder.sidecar, bare)
    path = run.folder.path

    by_torch = evaluate(path, out=tmp_path / "a", workers=0)
    others = [
        evaluate(path, backend="onnx", out=tmp_path / "b", workers=0),
        evaluate(bare / "model.onnx", data=data / "test", out=tmp_path / "c", workers=0),
        evaluate(path, data=listed(data), out=tmp_path / "d", workers=0),
    ]

    assert [item.backend for item in others] == ["onnx", "onnx", "torch"]
    names = [row["path"].removeprefix("test/") for row in rows_of(tmp_path / "a")]
    assert len(names) == COUNTS["test"] * len(CLASSES)
    scale = np.maximum(1, np.abs(by_torch.logits).max(axis=1))
    top = np.sort(by_torch.logits, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-5 * scale
    for other, folder in zip(others, "bcd", strict=True):
        found = [row["path"].removeprefix("test/") for row in rows_of(tmp_path / folder)]
        assert found == names
        assert (np.abs(by_torch.logits - other.logits).max(axis=1) <= 1e-5 * scale).all()
        same = by_torch.logits.argmax(axis=1) == other.logits.argmax(axis=1)
        assert same[clear].all()


@pytest.mark.promise("T1")
def test_onnx_answers_do_not_replace_what_the_run_recorded(
    hard: tuple[Run, Path], tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(hard[0].folder.path, tmp_path / "run"))
    recorded = (copied / "evaluation/test/predictions.csv").read_bytes()

    evaluate(copied, backend="onnx", workers=0)

    assert (copied / "evaluation/test/predictions.csv").read_bytes() == recorded
    content = json.loads((copied / "evaluation/test-onnx/metrics.json").read_text())
    assert (content["backend"], content["split"]) == ("onnx", "test")


@pytest.mark.promise("D3")
def test_an_unknown_label_is_named_with_its_line_or_skipped_and_counted(
    hard: tuple[Run, Path], tmp_path: Path
) -> None:
    run, data = hard
    table = data / "labels.csv"
    table.write_text("photo,kind\ntest/NO/000.png,NO\ntest/00/000.png,O0\ntest/0/000.png,0\n")
    named = {"image_field": "photo", "label_field": "kind", "workers": 0}

    with pytest.raises(DataError, match=r"labels\.csv:3: label 'O0'"):
        evaluate(run.folder.path, data=table, out=tmp_path / "out", **named)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    found = evaluate(
        run.folder.path,
        data=table,
        unknown="skip",
        out=tmp_path / "out",
        **named,  # type: ignore[arg-type]
    )

    assert found.scores.images == 2
    content = json.loads((tmp_path / "out/metrics.json").read_text())
    assert content["skipped"] == {"unknown label": 1}
    assert content["split"] == "data-labels"


@pytest.mark.promise("N3")
def test_a_split_column_chooses_rows(hard: tuple[Run, Path], tmp_path: Path) -> None:
    run, data = hard
    table = data / "both.csv"
    table.write_text("path,label,split\ntest/NO/000.png,NO,test\nval/0/000.png,0,val\n")

    def images(split: str | None) -> int:
        found = evaluate(
            run.folder.path, data=table, split=split, out=tmp_path / str(split), workers=0
        )
        return found.scores.images

    assert (images(None), images("val"), images("test")) == (2, 1, 1)


def sliced(hard: tuple[Run, Path], out: Path) -> Evaluation:
    """Evaluate val and test images listed with facts: one slice all wrong, one as the rest."""
    run, data = hard
    plain = evaluate(run.folder.path, split="train", out=out / "plain", workers=0)
    right = {row["path"]: row["correct"] for row in rows_of(out / "plain")}
    lines = []
    for position, (path, was_right) in enumerate(sorted(right.items())):
        facts = {
            "light": "dusk" if was_right == "false" else "noon",
            "camera": f"cam {position % 2}",
            "lens": {"focal": 24 + position},
            "id": f"photo {position}",
        }
        label = Path(path).parent.name
        lines.append(json.dumps({"image": path, "suffix": label, "metadata": facts}))
    assert "false" in right.values()
    (data / "facts.jsonl").write_text("\n".join(lines) + "\n")
    assert plain.scores.images == len(lines)
    return evaluate(run.folder.path, data=data / "facts.jsonl", out=out / "sliced", workers=0)


@pytest.mark.promise("N2")
def test_slices_tell_where_the_model_is_worse_and_only_there(
    hard: tuple[Run, Path], tmp_path: Path
) -> None:
    found = sliced(hard, tmp_path)

    keys = {item.key for item in found.slices}
    assert keys == {"light", "camera", "lens.focal", IMAGE_SIZE}  # names of photos are no slices
    assert (found.slices[0].key, found.slices[0].value) == ("light", "dusk")
    assert found.slices[0].is_worse
    assert not any(item.is_worse for item in found.slices if item.key == "camera")
    dusk = found.slices[0]
    assert (dusk.accuracy.value, dusk.rest) == (0, 1)
    assert sum(item.images for item in found.slices if item.key == "lens.focal") == 48
    with (tmp_path / "sliced/slices.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["worse"] == "true" for row in written] == [item.is_worse for item in found.slices]
    assert int(written[0]["images"]) == dusk.images


@pytest.mark.promise("N1")
def test_the_curves_end_where_the_scores_are(hard: tuple[Run, Path], tmp_path: Path) -> None:
    found = evaluate(hard[0].folder.path, split="train", out=tmp_path, workers=0)

    with (tmp_path / "risk_coverage.csv").open(newline="") as file:
        curve = list(csv.DictReader(file))
    assert float(curve[-1]["coverage"]) == 1
    assert float(curve[-1]["risk"]) == pytest.approx(1 - found.scores.value("acc_top1"), abs=1e-6)
    with (tmp_path / "reliability.csv").open(newline="") as file:
        bins = list(csv.DictReader(file))
    images = sum(int(row["images"]) for row in bins)
    gaps = sum(
        int(row["images"]) * abs(float(row["accuracy"]) - float(row["mean_confidence"]))
        for row in bins
    )
    assert images == found.scores.images
    assert gaps / images == pytest.approx(found.scores.value("ece"), abs=1e-5)
    for name in ("confusion_matrix", "reliability", "risk_coverage"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 300


@pytest.mark.promise("N1")
def test_baselines_are_named_after_the_features_they_stand_on(
    hard: tuple[Run, Path], tmp_path: Path
) -> None:
    path = hard[0].folder.path
    found = evaluate(path, baselines=True, out=tmp_path, workers=0)

    content = json.loads((tmp_path / "metrics.json").read_text())["baselines"]
    assert set(content) == {"majority_class", "knn", "linear_probe"}
    assert content["majority_class"]["acc_top1"]["value"] == 1 / len(CLASSES)
    assert content["knn"]["features"] == "trained_network"  # the run began from nothing
    assert found.baselines["linear_probe"].value > 0.5


@pytest.mark.promise("C5")
def test_what_a_bare_onnx_file_cannot_do_is_said_before_anything_is_written(
    hard: tuple[Run, Path], tmp_path: Path
) -> None:
    run, data = hard
    onnx = run.folder.onnx
    for given, says in (
        ({}, "--data"),
        ({"data": data / "test"}, "--out"),
        ({"data": data / "test", "out": tmp_path / "o", "backend": "torch"}, "--backend onnx"),
        ({"data": data / "test", "out": tmp_path / "o", "baselines": True}, "run folder"),
        ({"data": data / "test", "out": tmp_path / "o", "device": "cuda"}, "--device cpu"),
    ):
        with pytest.raises(ConfigError, match=says):
            evaluate(onnx, workers=0, **given)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="nothing-here"):
        evaluate(onnx, data=tmp_path / "nothing-here", out=tmp_path / "o")
    shutil.copytree(data / "test", tmp_path / "photos" / "test")
    with pytest.raises(DataError, match="label 'test'"):
        evaluate(onnx, data=tmp_path / "photos", out=tmp_path / "o", workers=0)
    assert not (tmp_path / "o").exists()


@pytest.mark.promise("N2")
def test_the_command_prints_every_score_with_its_interval_and_the_folder(
    hard: tuple[Run, Path], tmp_path: Path
) -> None:
    run, data = hard
    out = tmp_path / "out"

    result = CliRunner().invoke(
        app, ["evaluate", str(run.folder.onnx), "--data", str(data / "test"), "--out", str(out)]
    )

    assert result.exit_code == 0, result.output
    content = json.loads((out / "metrics.json").read_text())
    for item in content["metrics"].values():
        assert f"{item['value']:.3f} [{item['low']:.3f}, {item['high']:.3f}]" in result.stdout
    assert str(out) in result.stdout
