"""One run on labels and paths that break careless code, followed through every file it writes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
from pathlib import Path

import onnx
import pytest

from classifier_training.cli.train import train as train_command
from classifier_training.inference.predictor import Predictor
from classifier_training.run.reader import Run
from tests.helpers.data import class_image
from tests.helpers.markdown import Rendered
from tests.helpers.runs import TINY, tiny_train

LABELS = (
    "0",
    "00",
    "08",
    "1e3",
    "NO",
    "null",
    "été 日本",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    'say "hi", twice',
    "../../escape",
    "line\nbreak",
    "..",
    "a/b\\c:*?",
    "x" * 300,
)
COUNTS = {"train": 3, "val": 2, "test": 2}


def write_hostile(root: Path) -> Path:
    """Images in nested folders with odd names, listed in two JSONL files a split."""
    drawn = 0  # no picture stands in two splits
    for split, count in COUNTS.items():
        lines = []
        for position, label in enumerate(LABELS):
            for number in range(count):
                # A name with a comma, a quote, a line break and a byte that is no UTF-8.
                name = f'deep/er/{position}, "{number}"\n{os.fsdecode(bytes([0xE9]))}.png'
                buffer = io.BytesIO()
                class_image(position, drawn, (24, 20)).save(buffer, format="PNG")
                drawn += 1
                path = root / split / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(buffer.getvalue())
                lines.append(json.dumps({"image": name, "suffix": label, "metadata": {"n": "é"}}))
        (root / split / "1.jsonl").write_text("\n".join(lines[::2]))
        (root / split / "2.jsonl").write_text("\n".join(lines[1::2]))
    return root


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    base = tmp_path_factory.mktemp("hostile")
    root = write_hostile(base / "images")
    return tiny_train(root, base / "out/run", "data=jsonl", "trainer.max_epochs=1")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.mark.promise("D2")
@pytest.mark.promise("S2")
def test_labels_are_verbatim_in_every_table(hostile: Run) -> None:
    folder = hostile.folder
    manifest = rows(folder.manifest)
    test = rows(folder.evaluation("test") / "predictions.csv")
    per_class = rows(folder.evaluation("test") / "per_class.csv")
    confusion = rows(folder.evaluation("test") / "confusion_matrix.csv")

    assert {row["label"] for row in manifest} == set(LABELS)
    assert len(manifest) == sum(COUNTS.values()) * len(LABELS)
    assert {row["metadata"] for row in manifest} == {'{"n": "é"}'}
    assert {row["true"] for row in test} == set(LABELS)
    assert {row["predicted"] for row in test} <= set(LABELS)
    assert [name for name in test[0] if name.startswith("prob:")] == [
        f"prob:{name}" for name in sorted(LABELS)
    ]
    assert {row["class"] for row in per_class if row.get("class")} >= set(LABELS)
    assert list(confusion[0])[1:] == sorted(LABELS)


@pytest.mark.promise("N3")
@pytest.mark.promise("S2")
def test_every_path_of_the_manifest_is_predicted_once(hostile: Run) -> None:
    manifest = rows(hostile.folder.manifest)
    for split in ("val", "test"):
        predicted = rows(hostile.folder.evaluation(split) / "predictions.csv")
        expected = [row["path"] for row in manifest if row["split"] == split]
        assert sorted(row["path"] for row in predicted) == sorted(expected)
        for row in predicted:
            assert (Path(hostile.record["data_root"]) / row["path"]).is_file()


@pytest.mark.promise("D2")
@pytest.mark.promise("X5")
def test_mapping_is_equal_in_sidecar_onnx_and_manifest(hostile: Run) -> None:
    expected = {name: at for at, name in enumerate(sorted(LABELS))}
    sidecar = json.loads(hostile.folder.sidecar.read_text(encoding="utf-8"))
    metadata = {item.key: item.value for item in onnx.load(hostile.folder.onnx).metadata_props}

    assert sidecar["class_to_idx"] == expected
    assert json.loads(metadata["class_to_idx"]) == expected
    assert Predictor.load(hostile.folder.path).class_map.as_class_to_idx() == expected


@pytest.mark.promise("S2")
def test_labels_are_no_markup_in_the_model_card(hostile: Run) -> None:
    rendered = Rendered(hostile.folder.model_card.read_text(encoding="utf-8").split("---\n", 2)[2])
    counts = {row[0]: row[1:] for row in rendered.rows if row[1:] == ["3", "2", "2"]}

    shown = {label.replace("\n", "\\n") for label in LABELS if len(label) < 60}
    assert counts.keys() == {*shown, "x" * 59 + "…"}
    assert not rendered.tags & {"script", "img", "del", "html"}


@pytest.mark.promise("S2")
def test_no_file_has_a_name_from_the_data(hostile: Run) -> None:
    base = hostile.folder.path.parent.parent
    written = [path for path in (base / "out").rglob("*") if path.is_file()]

    assert {path.name for path in base.iterdir()} == {"images", "out"}
    assert [path.name for path in (base / "out").iterdir()] == ["run"]
    for path in written:
        assert path.name.isascii()
        assert not any(label in path.name for label in LABELS if len(label) > 3)
        assert not set(path.name) & set("<>\"'\n\\:*? ,")


@pytest.mark.promise("D4")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("split", ["train", "val"])
def test_broken_image_stops_training_with_its_name(
    folder_data: Path,
    tmp_path: Path,
    workers: int,
    split: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Path(shutil.copytree(folder_data, tmp_path / "images"))
    broken = root / split / "NO/003.png"
    broken.write_bytes(broken.read_bytes()[:200])
    monkeypatch.chdir(tmp_path)

    code = exit_code_of(
        *TINY,
        f"data.data_root={root}",
        f"data.num_workers={workers}",
        "data.check=none",
        f"hydra.run.dir={tmp_path}/run",
    )

    message = capfd.readouterr().err
    assert code == 3
    assert f"error: cannot decode image {split}/NO/003.png" in message
    assert "Traceback" not in message
    assert not (tmp_path / "run/model.onnx").exists()
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["status"] != "finished"


def exit_code_of(*overrides: str) -> object:
    """Run ``classifier train`` in this process, which knows the tiny backbone."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return train_command(list(overrides))
    except SystemExit as stop:
        return stop.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
