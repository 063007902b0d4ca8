"""The exported pair as others use it: examples, OpenCV, providers, bad files, odd inputs."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from classifier_training.cli.verify import run_verify
from classifier_training.config.choices import RESIZE_MODES, ResizeMode
from classifier_training.data.image_stats import measure_images
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ConfigError
from classifier_training.inference.images import read_image
from classifier_training.inference.input_check import InputStatistics, measure
from classifier_training.inference.predictor import Extras, Predictor
from classifier_training.run.reader import Run
from tests.helpers.onnx_pair import write_pair
from tests.helpers.pixels import noise, png, write_images
from tests.helpers.predicting import predict
from tests.unit.test_sidecar import EDITS

EXAMPLES = Path(__file__).parents[2] / "examples"

# Ours cannot be imported, and neither can what the example says it does without.
_ALONE = """
import runpy, sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_BLOCKED = {
    "predict_numpy.py": "classifier_training,torch,cv2,loguru,scipy",
    "predict_opencv.py": "classifier_training,torch,PIL,loguru,scipy",
}


def run_example(name: str, folder: Path, images: list[Path]) -> list[list[str]]:
    """Return path, class and confidence of each line that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, _BLOCKED[name], EXAMPLES / name, folder, *images],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line.split(" ") for line in done.stdout.splitlines()]


@pytest.mark.promise("X4")
@pytest.mark.parametrize("name", sorted(_BLOCKED))
def test_example_answers_what_evaluation_recorded(
    tiny_run: Run, folder_data: Path, name: str
) -> None:
    with (tiny_run.folder.evaluation("test") / "predictions.csv").open(newline="") as file:
        recorded = list(csv.DictReader(file))

    answers = run_example(
        name, tiny_run.folder.path, [folder_data / row["path"] for row in recorded]
    )

    assert [answer[1] for answer in answers] == [row["predicted"] for row in recorded]
    np.testing.assert_allclose(
        [float(answer[2]) for answer in answers],
        [float(row["confidence"]) for row in recorded],
        atol=2e-3 if "opencv" in name else 1e-5,
    )


@pytest.mark.promise("X4")
@pytest.mark.parametrize("name", sorted(_BLOCKED))
@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_example_follows_each_resize_mode(tmp_path: Path, name: str, resize: ResizeMode) -> None:
    model = write_pair(tmp_path / "model", size=20, resize=resize)
    sizes = ((50, 31), (31, 50), (33, 33), (7, 40), (20, 20))
    root = write_images(
        tmp_path / "images", {f"{i}.png": noise(i, size) for i, size in enumerate(sizes)}
    )
    paths = sorted(root.iterdir())

    answers = run_example(name, model, paths)

    expected = list(Predictor.load(model).predict(paths))
    assert [answer[1] for answer in answers] == [item.label for item in expected]
    np.testing.assert_allclose(
        [float(answer[2]) for answer in answers],
        [item.confidence for item in expected],
        atol=2e-2 if "opencv" in name else 1e-5,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(tmp_path_factory.mktemp("model"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", {f"{i:02d}.png": noise(i) for i in range(7)})


@pytest.mark.promise("X4")
def test_opencv_is_reported_for_a_run_and_for_a_folder(
    tiny_run: Run, model: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = [
        run_verify(tiny_run.folder.path, data=None, backend="cv2", debug=False),
        run_verify(model / "model.onnx", data=images, backend="cv2", debug=False),
        run_verify(model, data=None, backend="cv2", debug=False),
    ]

    said = capsys.readouterr().err
    assert codes == [0, 0, 0]
    for name in ("linear", "area", "antialias"):
        assert f"OpenCV {name}: golden vectors: logits within" in said
    assert "OpenCV antialias: 0 of 40 images" in said  # val and test
    assert "of 7 images" in said
    assert "no images compared" in said


@pytest.mark.promise("I2")
def test_opencv_is_asked_for_where_it_is_missing(model: Path) -> None:
    code = (
        "import sys; sys.modules['cv2'] = None; sys.modules['torch'] = None\n"
        "from classifier_training.cli.main import app; app(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", str(model), "--backend", "cv2"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    assert "pip install 'classifier-training[opencv]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.promise("I2")
@pytest.mark.parametrize("flags", [[], ["--calibrated", "--sets", "--ood", "--check-inputs"]])
def test_base_install_predicts(tiny_run: Run, folder_data: Path, flags: list[str]) -> None:
    code = (
        "import sys\n"
        "for name in 'torch torchvision lightning hydra omegaconf onnx onnxscript "
        "scipy matplotlib cv2 jsonschema yaml'.split(): sys.modules[name] = None\n"
        "from classifier_training.cli.main import app; app(sys.argv[1:])"
    )
    sidecar = json.loads(tiny_run.folder.sidecar.read_text(encoding="utf-8"))
    if flags and sidecar["calibration"]["conformal"] is None:
        flags.remove("--sets")
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, "predict", str(tiny_run.folder.path)),
            *(str(folder_data / "test"), *flags),
        ],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 16
    assert ("energy " in done.stdout) == bool(flags)


@pytest.mark.promise("X3")
@pytest.mark.parametrize("name", ["tensorrt", "CUDAExecutionProvider", "gpu", ""])
def test_missing_provider_is_refused_with_those_there_are(
    model: Path, images: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(model, images, provider=name, out=tmp_path / "p.csv") == 2

    said = capsys.readouterr().err
    assert f"onnxruntime has no provider {name!r} here" in said
    assert "CPUExecutionProvider" in said
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.promise("X3")
@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider"])
def test_provider_and_threads_change_no_answer(model: Path, images: Path, name: str) -> None:
    paths = sorted(images.iterdir())
    usual = list(Predictor.load(model).predict(paths))
    asked = list(Predictor.load(model, threads=2, providers=[name]).predict(paths, batch_size=3))

    for one, other in zip(usual, asked, strict=True):
        assert one.label == other.label
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


@pytest.mark.promise("X3")
def test_a_folder_is_streamed(model: Path, images: Path) -> None:
    taken = 0

    def paths() -> Iterator[Path]:
        nonlocal taken
        for _ in range(60):
            taken += 7
            yield from sorted(images.iterdir())

    for consumed, _ in enumerate(Predictor.load(model).predict(paths(), batch_size=4), start=1):
        assert taken <= consumed + 4 * 4 + 7

    assert taken == 420


@pytest.mark.promise("X3")
def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    """1,600 tensors of 49 kB are 79 MB; no more than a few batches of them may stay."""
    predictor = Predictor.load(write_pair(tmp_path / "model", size=64), threads=1)
    root = write_images(tmp_path / "images", {"a.png": noise(1, (80, 60))})
    paths = (root / "a.png" for _ in range(2000))
    resident = []

    for done, _ in enumerate(predictor.predict(paths), start=1):
        if done in (400, 2000):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * resource.getpagesize())

    assert resident[1] - resident[0] < 20e6


@pytest.mark.promise("D4")
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_bad_images_are_named_and_left_out_when_asked(
    model: Path,
    images: Path,
    tmp_path: Path,
    batch_size: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("00.png", "03.png", "06.png"):
        (images / name).write_bytes(noise(1)[:50])

    out = tmp_path / "p.csv"
    assert predict(model, images, out=out, on_bad_image="skip", batch_size=batch_size) == 0

    said = capsys.readouterr().err
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == ["01.png", "02.png", "04.png", "05.png"]
    for name in ("00.png", "03.png", "06.png"):
        assert f"left out: cannot decode image {images / name}" in said
    assert "3 of 7 could not be read and are left out" in said


@pytest.mark.promise("D4")
def test_nothing_readable_is_an_error_and_keeps_the_old_file(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.csv"
    assert predict(model, images, out=out) == 0
    before = out.read_bytes()
    for path in images.iterdir():
        path.write_bytes(b"")

    assert predict(model, images, out=out, on_bad_image="skip") == 3
    assert predict(model, images, out=out) == 3
    assert predict(model, images, out=out, on_bad_image="pass") == 2

    assert "none of the 7 images can be read" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "p.csv"]


@pytest.mark.promise("C5")
@pytest.mark.parametrize(
    "extras", [Extras(True), Extras(sets=True), Extras(energy=True), Extras(check_inputs=True)]
)
def test_what_the_sidecar_lacks_is_refused(
    model: Path, images: Path, extras: Extras, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="has nothing for"):  # at once, not at the first image
        Predictor.load(model).predict(images.iterdir(), extras=extras)

    assert predict(model, images, out=tmp_path / "p.csv", extras=extras) == 2
    assert not (tmp_path / "p.csv").exists()


@pytest.fixture
def checking(tmp_path: Path) -> Path:
    """A pair whose training images were 40 to 60 pixels wide, of middling light."""
    folder = write_pair(tmp_path / "model")
    statistics = InputStatistics.of(
        {
            "width": np.array([40, 50, 60]),
            "height": np.array([30, 40, 50]),
            "brightness": np.array([0.3, 0.5, 0.7]),
            "contrast": np.array([0.1, 0.2, 0.4]),
        }
    )
    path = folder / "labels_mapping.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "input_statistics": statistics.to_json()}))
    return folder


@pytest.mark.promise("X3")
def test_inputs_unlike_the_training_images_are_named(
    checking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(
        tmp_path / "images",
        {
            "a usual.png": noise(1, (50, 40)),
            "b wide.png": noise(2, (500, 40)),
            "c dark.png": png((2, 2, 2), (50, 40)),
        },
    )
    out = tmp_path / "p.jsonl"

    assert predict(checking, root, out=out, extras=Extras(check_inputs=True)) == 0

    said = capsys.readouterr().err
    rows = [json.loads(line)["oddities"] for line in out.read_text().splitlines()]
    assert rows[0] == []
    assert rows[1] == ["width 500 above 59.98"]
    assert [text.split(" ")[0] for text in rows[2]] == ["brightness", "contrast"]
    assert f"unlike the training images: {root / 'b wide.png'}: width 500 above 59.98" in said
    assert "2 of 3 are unlike the training images" in said


@pytest.mark.promise("X3")
def test_inputs_are_measured_as_training_images_are(tiny_run: Run, folder_data: Path) -> None:
    names = Predictor.load(tiny_run.folder.path).class_map
    manifest = Manifest.read(tiny_run.folder.manifest, names, folder_data)
    facts = measure_images(manifest, workers=1)

    for row in range(0, len(manifest), 7):
        found = measure(read_image(manifest.file(row)))
        assert (found["width"], found["height"]) == (facts.widths[row], facts.heights[row])
        assert found["brightness"] == pytest.approx(facts.means[row].mean(), abs=1e-6)
        assert found["contrast"] == pytest.approx(facts.stds[row].mean(), abs=1e-6)


@pytest.mark.promise("X3")
def test_run_ships_the_statistics_of_its_training_images(tiny_run: Run, folder_data: Path) -> None:
    statistics = Predictor.load(tiny_run.folder.path).sidecar.input_statistics
    train = [measure(read_image(path)) for path in (folder_data / "train").rglob("*.png")]

    assert statistics is not None
    assert statistics.images == len(train) == 48
    for name in ("width", "height", "brightness", "contrast"):
        low, median, high = statistics.ranges[name]
        values = sorted(item[name] for item in train)
        assert low == pytest.approx(values[0], rel=0.01)
        assert median == pytest.approx(np.median(values), abs=1e-5)
        assert high == pytest.approx(values[-1], rel=0.01)


@pytest.mark.promise("X5")
@pytest.mark.parametrize("name", sorted(EDITS))
def test_mismatched_pair_is_refused_and_nothing_is_written(
    tmp_path: Path, images: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, expected = EDITS[name]
    path = write_pair(tmp_path / "model") / "labels_mapping.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}

    verified = run_verify(tmp_path / "model", data=None, backend="pil", debug=False)
    said = capsys.readouterr().err
    predicted = predict(tmp_path / "model", images, out=tmp_path / "p.csv")

    assert verified == 5
    assert expected in said
    assert "fix:" in said
    assert "Traceback" not in said
    if name.startswith("golden"):  # whole, but wrong: what verify is for
        (tmp_path / "p.csv").unlink(missing_ok=True)
    else:
        assert predicted == 5
    assert {
        file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file != tmp_path
    } == before
