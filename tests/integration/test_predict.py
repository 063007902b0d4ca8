"""``classifier predict`` and ``classifier verify`` as a deployer meets them: no torch."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier_training.cli.verify import run_verify
from classifier_training.run.checkpoint import load_model
from classifier_training.run.reader import Run
from tests.helpers.onnx_pair import write_pair
from tests.helpers.pixels import noise, write_images
from tests.helpers.predicting import predict


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(tmp_path_factory.mktemp("model"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(
        tmp_path / "images",
        {
            "b.png": noise(1),
            "a.JPG": noise(2),
            "deep/er/c.png": noise(3),
            "deep/[1].png": noise(4),
            "deep/._c.png": b"\0\5\26\7",
            "notes.txt": b"",
            ".cache/x.png": noise(5),
        },
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


_WITHOUT_TORCH = """
import sys
from classifier_training.cli.main import app
code = 0
try:
    app(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
# Not pydantic: newer versions of Typer bring and import it.
heavy = {"torch", "torchvision", "lightning", "hydra", "omegaconf", "onnx", "scipy", "matplotlib"}
print("heavy:", sorted(heavy & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.promise("X3")
@pytest.mark.parametrize("command", ["predict", "verify"])
def test_torch_is_not_imported(tiny_run: Run, folder_data: Path, command: str) -> None:
    arguments = [str(folder_data / "test/00")] if command == "predict" else []

    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, command, str(tiny_run.folder.path), *arguments],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout
    expected = "test/00/003.png: " if command == "predict" else "verified"
    assert expected in (done.stdout if command == "predict" else done.stderr)


@pytest.mark.promise("X3")
def test_runtime_needs_numpy_pillow_and_onnxruntime_only() -> None:
    code = "import sys, classifier_training.inference.verification; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    loaded = set(done.stdout.split())
    assert {"numpy", "PIL", "onnxruntime"} <= loaded, done.stderr
    assert not loaded & {"torch", "torchvision", "lightning", "hydra", "pydantic", "onnx", "scipy"}


@pytest.mark.promise("X3")
def test_evaluation_prediction_and_network_agree_on_every_image(
    tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    folder = tiny_run.folder
    evaluated = {row["path"]: row for row in table(folder.evaluation("test") / "predictions.csv")}

    assert predict(folder.path, folder_data / "test", out=tmp_path / "p.csv") == 0
    predicted = table(tmp_path / "p.csv")

    assert len(predicted) == len(evaluated) == 16
    best = load_model(folder.best)
    for row in predicted:
        path = Path(row["path"])
        known = evaluated[path.relative_to(folder_data).as_posix()]
        columns = [name for name in row if name.startswith("prob:")]
        assert columns == [f"prob:{name}" for name in best.metadata.class_map.names]
        assert row["predicted"] == known["predicted"]
        ours = np.array([float(row[name]) for name in columns])
        theirs = np.array([float(known[name]) for name in columns])
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        pixels = best.metadata.spec.load(path.read_bytes(), "x")[None]
        with torch.inference_mode():
            logits = best.network(torch.from_numpy(best.metadata.spec.normalize(pixels)))
        np.testing.assert_allclose(ours, logits.double().softmax(1)[0].numpy(), atol=1e-5)


@pytest.mark.promise("X3")
def test_files_folders_and_globs_are_found(model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"

    assert predict(model, images, out=out) == 0
    everything = [Path(row["path"]).relative_to(images).as_posix() for row in table(out)]
    assert predict(model, images / "b.png", f"{images}/**/c.png", out=out) == 0
    some = [Path(row["path"]).name for row in table(out)]
    assert predict(model, images / "deep/[1].png", out=out) == 0

    assert everything == ["a.JPG", "b.png", "deep/[1].png", "deep/er/c.png"]
    assert some == ["b.png", "c.png"]
    assert len(table(out)) == 1


@pytest.mark.promise("X3")
def test_result_does_not_depend_on_the_batch(model: Path, images: Path, tmp_path: Path) -> None:
    found = []
    for batch_size in (1, 3, 32):
        out = tmp_path / f"{batch_size}.csv"
        assert predict(model, images, out=out, batch_size=batch_size) == 0
        found.append(table(out))

    for rows in found[1:]:
        for row, first in zip(rows, found[0], strict=True):
            assert row["predicted"] == first["predicted"]
            assert float(row["confidence"]) == pytest.approx(float(first["confidence"]), abs=1e-5)


@pytest.mark.promise("X3")
def test_jsonl_and_screen(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(model, images, out=tmp_path / "p.jsonl") == 0
    assert predict(model, images, top_k=2) == 0

    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    shown = capsys.readouterr().out.splitlines()
    assert len(rows) == len(shown) == 4
    for row, line in zip(rows, shown, strict=True):
        probabilities = row["probabilities"]
        assert row["predicted"] == max(probabilities, key=probabilities.get)
        assert row["confidence"] == max(probabilities.values())
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert line.startswith(f"{row['path']}: {row['predicted']} {row['confidence']:.3f}  ")
        assert len(line.removeprefix(f"{row['path']}: ").split("  ")) == 2


@pytest.mark.promise("S2")
def test_path_that_is_no_utf8(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"new\nline,\xff.png")
    path = write_images(tmp_path / "images", {name: noise(1)}) / name

    assert predict(model, tmp_path / "images", out=tmp_path / "p.csv") == 0
    assert predict(model, tmp_path / "images", out=tmp_path / "p.jsonl") == 0
    assert predict(model, tmp_path / "images") == 0

    assert table(tmp_path / "p.csv")[0]["path"] == str(path)
    assert json.loads((tmp_path / "p.jsonl").read_text())["path"] == str(path)


@pytest.mark.promise("D4")
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_broken_image_is_named_and_leaves_no_file(
    model: Path, images: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = images / "deep/er/c.png"
    broken.write_bytes(noise(3)[:80])
    before = sorted(tmp_path.iterdir())

    assert predict(model, images, out=tmp_path / f"p.{ending}") == 3

    message = capsys.readouterr().err
    assert f"error: cannot decode image {broken}: " in message
    assert "fix:" in message
    assert "Traceback" not in message
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.promise("C5")
@pytest.mark.parametrize(
    ("arguments", "out", "code", "expected"),
    [
        (["none.png"], None, 3, "no image at none.png"),
        (["*.webp"], None, 3, "no image at *.webp"),
        (["empty"], None, 3, "no image at empty"),
        (["images/b.png"], "p.xlsx", 2, "--out p.xlsx has an unknown ending"),
        (["images/b.png"], "images/b.png/p.csv", 2, "cannot write --out images/b.png/p.csv"),
        (["images/b.png"], "folder.csv", 2, "cannot write --out folder.csv"),
        (["images/b.png"], "/proc/nothing/p.csv", 2, "cannot write --out /proc/nothing/p.csv"),
    ],
)
def test_mistakes_are_told(
    model: Path,
    images: Path,
    arguments: list[str],
    out: str | None,
    code: int,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(images.parent)
    Path("empty").mkdir()
    Path("folder.csv").mkdir()
    before = sorted(Path().rglob("*"))

    assert predict(model, *arguments, out=Path(out) if out else None) == code

    message = capsys.readouterr().err
    assert f"error: {expected}" in message
    assert "expected:" in message
    assert "fix:" in message
    assert sorted(Path().rglob("*")) == before


@pytest.mark.promise("X5")
def test_mismatched_pair_ends_with_5(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path / "a", seed=1)
    write_pair(tmp_path / "b", seed=2)
    shutil.copy(tmp_path / "b/model.onnx", tmp_path / "a/model.onnx")

    codes = [
        predict(tmp_path / "a", images),
        run_verify(tmp_path / "a", backend="pil", data=None, debug=False),
        predict(tmp_path / "b", images),
        run_verify(tmp_path / "b/model.onnx", backend="pil", data=None, debug=False),
    ]

    assert codes == [5, 5, 0, 0]
    assert "its sidecar was written for" in capsys.readouterr().err


@pytest.fixture
def run_copy(tiny_run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.folder.path, tmp_path / "run"))


def first_row(change: str) -> object:
    """Edit a cell of the first row of a predictions.csv."""
    column, _, value = change.partition("=")

    def edit(text: str) -> str:
        header, row, *rest = text.split("\r\n")
        cells = row.split(",")
        cells[header.split(",").index(column)] = value
        return "\r\n".join([header, ",".join(cells), *rest])

    return edit


@pytest.mark.promise("X5")
@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (first_row("prob:00=0.9"), "another class"),
        (first_row("prob:00=nan"), "cannot read the recorded predictions"),
        (first_row("prob:00=many"), "cannot read the recorded predictions"),
        (first_row("predicted=none"), "cannot read the recorded predictions"),
        (lambda text: text.split("\r\n")[0] + "\r\n", "it has no rows"),
        (lambda text: "", "it has no rows"),
        (lambda text: text.replace("prob:00", "prob:000"), "'prob:00'"),
        (lambda text: text[:-100], "cannot read the recorded predictions"),
    ],
)
def test_verify_refuses_what_it_does_not_reproduce(
    run_copy: Path, edit: object, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_copy / "evaluation/val/predictions.csv"
    assert callable(edit)
    path.write_bytes(edit(path.read_bytes().decode()).encode())

    assert run_verify(run_copy, backend="pil", data=None, debug=False) == 5
    assert expected in capsys.readouterr().err


@pytest.mark.promise("X5")
def test_verify_notices_a_recorded_class_that_changed(
    run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_copy / "evaluation/val/predictions.csv"
    rows = table(path)
    wrong = {"0": "00", "00": "1e3", "1e3": "NO", "NO": "0"}
    for row in rows:
        row["predicted"] = wrong[row["predicted"]]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

    assert run_verify(run_copy, backend="pil", data=None, debug=False) == 5
    assert "images get another class" in capsys.readouterr().err


@pytest.mark.promise("X5")
def test_verify_finds_moved_data(
    run_copy: Path, folder_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder_data, tmp_path / "moved")
    (run_copy / "run.json").write_text("{}")

    codes = [
        run_verify(run_copy, backend="pil", data=tmp_path / "moved", debug=False),
        run_verify(run_copy, backend="pil", data=None, debug=False),
        run_verify(run_copy, backend="pil", data=tmp_path / "nowhere", debug=False),
        run_verify(run_copy / "model.onnx", backend="pil", data=tmp_path / "moved", debug=False),
    ]

    message = capsys.readouterr().err
    assert codes == [0, 5, 3, 2]
    assert "fix:      say where they lie: --data DIR" in message
    assert f"cannot read image {tmp_path}/nowhere" in message
    assert "is no run folder" in message


@pytest.mark.promise("X5")
def test_verify_notices_changed_pixels(
    run_copy: Path, folder_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(folder_data, tmp_path / "moved"))
    (moved / "val/00/000.png").write_bytes(noise(1, (48, 40)))

    assert run_verify(run_copy, backend="pil", data=moved, debug=False) == 5
    assert "val images get another class than" in capsys.readouterr().err
