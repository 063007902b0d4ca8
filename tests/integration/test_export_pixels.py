"""The variant that takes uint8 pixels: the same answers, the same pair rules."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from jsonschema import Draft202012Validator
from onnx import numpy_helper

from classifier_training.cli.export import ExportOptions, run_export
from classifier_training.errors import ExportError
from classifier_training.exporters import uint8
from classifier_training.exporters.uint8 import PixelsExport, export_pixels
from classifier_training.inference.images import read_image
from classifier_training.inference.predictor import Predictor
from classifier_training.inference.sidecar import SCHEMA_FILE, sha256_of
from classifier_training.inference.verification import verify_golden
from classifier_training.run.reader import Run


@pytest.fixture(scope="module")
def exported(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> PixelsExport:
    """Do not write into it."""
    folder = tmp_path_factory.mktemp("pixels") / "run"
    shutil.copytree(tiny_run.folder.path, folder)
    return export_pixels(folder)


@pytest.mark.promise("X7")
def test_model_stays_and_the_variant_takes_bytes(exported: PixelsExport, tiny_run: Run) -> None:
    folder = exported.onnx.parent
    session = ort.InferenceSession(str(exported.onnx))
    (node,) = session.get_inputs()
    sidecar = json.loads(exported.sidecar.read_text())

    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert not list(Draft202012Validator(schema).iter_errors(sidecar))
    assert exported.onnx.name == "model.uint8.onnx"
    assert exported.sidecar.name == "labels_mapping.uint8.json"
    for name in ("model.onnx", "labels_mapping.json"):
        assert (folder / name).read_bytes() == (tiny_run.folder.path / name).read_bytes()
    assert (node.name, node.type, node.shape[1:]) == ("input", "tensor(uint8)", [32, 32, 3])
    assert sidecar["model"]["input"] == {
        "name": "input",
        "dtype": "uint8",
        "shape": ["batch", 32, 32, 3],
    }
    assert sidecar["model"]["sha256"] == sha256_of(exported.onnx)


@pytest.mark.promise("X7")
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_logits_are_those_of_the_model(
    exported: PixelsExport, folder_data: Path, batch: int
) -> None:
    model = Predictor.load(exported.onnx.parent)
    paths = sorted((folder_data / "test").rglob("*.png"))[:batch]
    pixels = np.stack([model.spec.resize_image(read_image(path)) for path in paths])
    session = ort.InferenceSession(str(exported.onnx))

    (found,) = session.run(["logits"], {"input": pixels})

    np.testing.assert_allclose(found, model.logits(pixels), atol=1e-5, rtol=0)
    assert exported.agreement.images == 24
    assert exported.agreement.holds


@pytest.mark.promise("X7")
def test_every_byte_is_normalised_bit_by_bit_as_outside(
    exported: PixelsExport, tmp_path: Path
) -> None:
    model = onnx.load(exported.onnx)
    last = next(node for node in model.graph.node if node.op_type == "Transpose")
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(last.output[0], onnx.TensorProto.FLOAT, None)
    )
    session = ort.InferenceSession(model.SerializeToString())
    pixels = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    pixels[0, :16, :16] = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None]

    (found,) = session.run([last.output[0]], {"input": pixels})

    expected = Predictor.load(exported.onnx.parent).spec.normalize(pixels)
    assert np.array_equal(found, expected)


@pytest.mark.promise("X7")
def test_the_predictor_answers_the_same_from_files(
    exported: PixelsExport, folder_data: Path
) -> None:
    paths = sorted((folder_data / "test").rglob("*.png"))
    ours, theirs = (
        list(Predictor.load(path).predict(paths, batch_size=5))
        for path in (exported.onnx.parent, exported.onnx)
    )

    assert all(item.holds for item in verify_golden(Predictor.load(exported.onnx)))
    assert [item.label for item in theirs] == [item.label for item in ours]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


@pytest.mark.promise("X7")
@pytest.mark.promise("X5")
@pytest.mark.parametrize(("dtype", "name"), [("float32", "uint8"), ("uint8", None)])
def test_a_sidecar_of_the_other_input_is_refused(
    exported: PixelsExport, tmp_path: Path, dtype: str, name: str | None
) -> None:
    folder = Path(shutil.copytree(exported.onnx.parent, tmp_path / "run"))
    sidecar = folder / ("labels_mapping.uint8.json" if name else "labels_mapping.json")
    content = json.loads(sidecar.read_text())
    content["model"]["input"]["dtype"] = dtype
    sidecar.write_text(json.dumps(content))

    with pytest.raises(ExportError, match="which its sidecar contradicts"):
        Predictor.load(folder / "model.uint8.onnx" if name else folder)


@pytest.mark.promise("X7")
def test_a_graph_that_normalises_otherwise_leaves_no_file(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(tiny_run.folder.path, tmp_path / "run"))
    before = sorted(path.name for path in run.iterdir())

    from_array = numpy_helper.from_array

    def by_256(array: np.ndarray, name: str) -> onnx.TensorProto:
        return from_array(np.asarray(array + np.float32(name == "pixels_255")), name)

    monkeypatch.setattr(uint8.numpy_helper, "from_array", by_256, raising=True)
    with pytest.raises(ExportError, match="gets other logits than from"):
        export_pixels(run)

    assert sorted(path.name for path in run.iterdir()) == before


@pytest.mark.promise("X7")
def test_the_command_writes_it_beside_the_model(tiny_run: Run, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run.folder.path, tmp_path / "run"))

    assert run_export(run, ExportOptions(18, "fp32", "uint8", 0.01, None), debug=False) == 0

    assert Predictor.load(run / "model.uint8.onnx").sidecar.takes_pixels
    assert not Predictor.load(run).sidecar.takes_pixels
