"""The exported file: one file, as configured, with the checkpoint's answers, or none at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from typer.testing import CliRunner

import classifier_training
from classifier_training.cli.console import set_up_logging
from classifier_training.cli.export import ExportOptions, run_export
from classifier_training.cli.main import app
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ConfigError, DataError, ExportError, ResumeError
from classifier_training.evaluation.evaluate import evaluate
from classifier_training.exporters.onnx import export, export_verified
from classifier_training.inference.predictor import Predictor
from classifier_training.run.checkpoint import load_model
from classifier_training.run.folder import RunFolder
from classifier_training.run.reader import Run
from tests.helpers import spies
from tests.helpers.checkpoints import read
from tests.helpers.data import CLASSES, write_folder
from tests.helpers.runs import tiny_train


@pytest.fixture(autouse=True)
def _log_sink() -> Iterator[None]:
    """Commands send the log to the stderr of the moment, which pytest closes after the test."""
    yield
    set_up_logging(debug=False)


@pytest.fixture
def copied_run(tiny_run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.folder.path, tmp_path / "copied"))


def export_command(run: Path, *, precision: str = "fp32", data_root: Path | None = None) -> int:
    options = ExportOptions(18, precision, "float32", 0.01, data_root)
    return run_export(run, options, debug=False)


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.mark.promise("X2")
def test_the_model_is_one_file_with_all_weights_inside(tiny_run: Run, tmp_path: Path) -> None:
    alone = shutil.copyfile(tiny_run.folder.onnx, tmp_path / "alone.onnx")
    proto = onnx.load(alone, load_external_data=False)

    assert all(
        tensor.data_location != TensorProto.EXTERNAL and tensor.ByteSize() > 0
        for tensor in proto.graph.initializer
    )
    assert not [name for name in files_of(tiny_run.folder.path) if ".onnx." in name]
    weights = sum(int(np.prod(tensor.dims)) for tensor in proto.graph.initializer)
    assert weights > 1000
    ort.InferenceSession(str(alone), providers=["CPUExecutionProvider"])


@pytest.mark.promise("X2")
def test_input_and_output_are_those_that_are_promised(tiny_run: Run) -> None:
    graph = onnx.load(tiny_run.folder.onnx).graph
    (given,), (answer,) = graph.input, graph.output

    def shape(value: onnx.ValueInfoProto) -> list[int]:
        return [dim.dim_value for dim in value.type.tensor_type.shape.dim]

    assert (given.name, answer.name) == ("input", "logits")
    assert given.type.tensor_type.elem_type == TensorProto.FLOAT
    assert answer.type.tensor_type.elem_type == TensorProto.FLOAT
    assert shape(given) == [0, 3, 32, 32]  # 0: of any length
    assert shape(answer) == [0, len(CLASSES)]
    assert given.type.tensor_type.shape.dim[0].dim_param


@pytest.mark.promise("X2")
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_graph_is_the_raw_network_without_normalisation(tiny_run: Run, batch: int) -> None:
    network = load_model(tiny_run.folder.best).network
    rng = np.random.default_rng(batch)
    tensor = rng.normal(0, 1, (batch, 3, 32, 32)).astype(np.float32)
    session = ort.InferenceSession(str(tiny_run.folder.onnx), providers=["CPUExecutionProvider"])

    (found,) = session.run(None, {"input": tensor})

    with torch.inference_mode():
        expected = network(torch.from_numpy(tensor)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.promise("X2")
@pytest.mark.promise("T1")
def test_the_graph_holds_the_weights_that_were_scored(tiny_run: Run) -> None:
    state = read(tiny_run.folder.best)["state_dict"]
    initializers = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tiny_run.folder.onnx).graph.initializer
    }

    name = next(name for name in initializers if name.endswith("fc.bias"))
    averaged, raw = (state[f"{prefix}network.fc.bias"] for prefix in ("ema.module.", "net."))
    assert (initializers[name] == averaged.numpy()).all()
    assert not (initializers[name] == raw.numpy()).all()


@pytest.mark.promise("X2")
@pytest.mark.promise("C3")
def test_another_opset_size_and_normalisation_reach_every_artefact(
    folder_data: Path, tmp_path: Path
) -> None:
    run = tiny_train(
        folder_data,
        tmp_path / "run",
        "export.opset=20",
        "transforms.image_size=40",
        "transforms.resize=pad",
        "transforms.mean=[0.1,0.2,0.3]",
        "transforms.std=[0.4,0.5,0.6]",
        "trainer.max_epochs=1",
    )

    proto = onnx.load(run.folder.onnx)
    sidecar = json.loads(run.folder.sidecar.read_text())
    metadata = {item.key: json.loads(item.value) for item in proto.metadata_props}
    card = load_model(run.folder.best).metadata
    assert {item.domain: item.version for item in proto.opset_import}[""] == 20
    assert sidecar["model"]["opset"] == 20
    dims = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims[2:] == sidecar["model"]["input"]["shape"][2:] == [40, 40]
    for section in (sidecar, metadata):
        assert section["preprocessing"]["image_size"] == 40
        assert section["preprocessing"]["resize"] == "pad"
        assert section["normalization"] == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert (card.spec.image_size, card.spec.mean, card.spec.std) == (
        40,
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 0.6),
    )
    assert Predictor.load(run.folder.path).spec == card.spec


@pytest.mark.promise("X2")
def test_by_default_the_opset_is_18(tiny_run: Run) -> None:
    opsets = {item.domain: item.version for item in onnx.load(tiny_run.folder.onnx).opset_import}

    assert opsets == {"": 18}


@pytest.mark.promise("X5")
@pytest.mark.promise("D2")
def test_the_mapping_is_the_same_in_checkpoint_sidecar_and_metadata(tiny_run: Run) -> None:
    sidecar = json.loads(tiny_run.folder.sidecar.read_text(encoding="utf-8"))
    proto = onnx.load(tiny_run.folder.onnx)
    metadata = {item.key: json.loads(item.value) for item in proto.metadata_props}
    stored = read(tiny_run.folder.best)["classifier_training"]

    expected = {"0": 0, "00": 1, "1e3": 2, "NO": 3}
    assert sidecar["class_to_idx"] == metadata["class_to_idx"] == expected
    assert {name: index for index, name in enumerate(stored["classes"])} == expected
    assert sidecar["idx_to_class"] == {"0": "0", "1": "00", "2": "1e3", "3": "NO"}
    assert sidecar["num_classes"] == 4
    assert sidecar["normalization"] == metadata["normalization"]
    assert sidecar["normalization"]["mean"] == stored["spec"]["mean"]
    assert sidecar["preprocessing"] == metadata["preprocessing"]


def _digest_of_average(run: Run) -> str:
    """Hash the averaged weights as they lie in the best checkpoint."""
    state = torch.load(run.folder.best, weights_only=True)["state_dict"]
    digest = hashlib.sha256()
    for key in sorted(key for key in state if key.startswith("ema.module.")):
        values = state[key].numpy()
        shape = "x".join(map(str, values.shape))
        digest.update(f"{key.removeprefix('ema.module.')} {values.dtype} {shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


@pytest.mark.promise("X1")
def test_the_sidecar_says_where_the_model_comes_from(tiny_run: Run) -> None:
    sidecar = json.loads(tiny_run.folder.sidecar.read_text())
    provenance = sidecar["provenance"]

    assert provenance["run_id"] == tiny_run.record["id"]
    assert provenance["epoch"] == tiny_run.record["best"]["epoch"]
    assert provenance["data_fingerprint"] == tiny_run.record["data_fingerprint"]
    assert provenance["weights"] == "moving average"
    assert provenance["weights_sha256"] == _digest_of_average(tiny_run)
    assert provenance["verified_images"] == 24
    assert 0 <= provenance["largest_relative_logit_difference"] <= 1e-5
    assert sidecar["model"]["precision"] == "fp32"
    assert sidecar["model"]["architecture"] == "tiny"


@pytest.mark.promise("X5")
def test_the_onnx_file_alone_says_where_it_comes_from(tiny_run: Run) -> None:
    session = ort.InferenceSession(str(tiny_run.folder.onnx))
    stored = json.loads(session.get_modelmeta().custom_metadata_map["provenance"])

    assert stored == {
        "run_id": tiny_run.record["id"],
        "epoch": tiny_run.record["best"]["epoch"],
        "weights": "moving average",
        "weights_sha256": _digest_of_average(tiny_run),
        "data_fingerprint": tiny_run.record["data_fingerprint"],
        "classifier_training": classifier_training.__version__,
    }


@pytest.mark.promise("X5")
def test_a_checkpoint_gives_the_same_file_each_time(copied_run: Path, tmp_path: Path) -> None:
    before = (copied_run / "model.onnx").read_bytes()

    export(copied_run)

    assert (copied_run / "model.onnx").read_bytes() == before


@pytest.mark.promise("X1")
@pytest.mark.parametrize("image", [0, 1, 23])
@pytest.mark.parametrize("fault", ["a little off", "another class", "not a number"])
def test_a_disagreement_on_one_image_leaves_the_old_files_as_they_were(
    copied_run: Path, folder_data: Path, image: int, fault: str
) -> None:
    folder = RunFolder(copied_run)
    measured = evaluate(copied_run, split="val", workers=0, batch_size=8)
    folder.onnx.write_bytes(b"an older export")
    before = {name: (copied_run / name).read_bytes() for name in files_of(copied_run)}
    logits = measured.logits.copy()
    if fault == "a little off":
        logits[image, 0] += 3e-5 * max(1, np.abs(logits[image]).max())
    elif fault == "another class":
        logits[image] = np.roll(logits[image], 1)
    else:
        logits[image, 2] = np.nan
    model = load_model(folder.best)
    manifest = Manifest.read(folder.manifest, model.metadata.class_map, folder_data)

    with pytest.raises(ExportError) as caught:
        export_verified(folder, model, manifest, measured.rows, logits, opset=18)

    assert caught.value.exit_code == 5
    assert manifest.paths[int(measured.rows[image])] in str(caught.value)
    assert {name: (copied_run / name).read_bytes() for name in files_of(copied_run)} == before


@pytest.mark.promise("X1")
def test_weights_of_another_epoch_are_not_exported_under_these_scores(
    copied_run: Path, folder_data: Path
) -> None:
    folder = RunFolder(copied_run)
    measured = evaluate(copied_run, split="val", workers=0)
    for name in ("model.onnx", "labels_mapping.json"):
        (copied_run / name).unlink()
    model = load_model(folder.best)
    state = {
        key.removeprefix("net."): value  # the raw weights; the average was scored
        for key, value in read(folder.best)["state_dict"].items()
        if key.startswith("net.")
    }
    model.network.load_state_dict(state)
    manifest = Manifest.read(folder.manifest, model.metadata.class_map, folder_data)
    before = files_of(copied_run)

    with pytest.raises(ExportError, match="does not reproduce"):
        export_verified(folder, model, manifest, measured.rows, measured.logits, opset=18)

    assert files_of(copied_run) == before


@pytest.mark.promise("X1")
@pytest.mark.parametrize(
    ("network", "says"),
    [
        pytest.param("lies", "does not reproduce torch at batch 1", id="the graph lies"),
        pytest.param(
            "two",
            "cannot run the exported network",
            id="the graph has a fixed batch size",
            marks=pytest.mark.slow,
        ),
        pytest.param("branches", "cannot express branches in ONNX", id="cannot be exported"),
    ],
)
def test_a_network_that_does_not_survive_export_fails_the_run_and_the_command(
    folder_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    network: str,
    says: str,
) -> None:
    spies.register_faulty()
    out = tmp_path / "run"

    with pytest.raises(ExportError, match=says):
        tiny_train(folder_data, out, f"model.name={network}", "trainer.max_epochs=1")

    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    assert (out / "checkpoints" / "best.ckpt").exists()
    assert (out / "evaluation" / "val" / "metrics.json").exists()
    (out / "model.onnx").write_bytes(b"an older export")
    before = files_of(out)
    capsys.readouterr()

    assert export_command(out) == 5

    told = capsys.readouterr().err
    assert says in told
    assert "\x1b" not in told.partition("error: ")[2]
    assert "fix: " in told
    assert files_of(out) == before
    assert (out / "model.onnx").read_bytes() == b"an older export"


@pytest.mark.promise("X1")
def test_one_validation_image_is_verified_at_a_batch_of_two_as_well(tmp_path: Path) -> None:
    spies.register_faulty()
    root = write_folder(tmp_path / "images")
    for file in sorted((root / "val").rglob("*.png"))[1:]:
        file.unlink()

    with pytest.raises(ExportError, match=r"on 2 image\(s\)"):
        tiny_train(root, tmp_path / "run", "model.name=one", "trainer.max_epochs=1")

    assert not (tmp_path / "run" / "model.onnx").exists()
    run = tiny_train(root, tmp_path / "good", "trainer.max_epochs=1")
    assert json.loads(run.folder.sidecar.read_text())["provenance"]["verified_images"] == 1


@pytest.mark.promise("X2")
@pytest.mark.parametrize("opset", [5, pytest.param(99, marks=pytest.mark.slow)])
def test_an_opset_that_torch_does_not_write_is_refused(copied_run: Path, opset: int) -> None:
    before = (copied_run / "model.onnx").read_bytes()

    with pytest.raises(ExportError, match=f"opset {opset}"):
        export(copied_run, opset=opset)

    assert (copied_run / "model.onnx").read_bytes() == before
    assert not list(copied_run.glob(".*"))


@pytest.mark.promise("X6")
@pytest.mark.promise("C5")
@pytest.mark.parametrize("precision", ["int4", "fp16", ""])
def test_a_precision_that_there_is_not_is_refused(
    copied_run: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    assert export_command(copied_run, precision=precision) == ConfigError.exit_code

    told = capsys.readouterr().err
    assert f"--precision {precision}" in told
    assert "fp32" in told
    assert "Traceback" not in told


@pytest.mark.promise("X6")
@pytest.mark.promise("C1")
def test_a_run_is_not_started_for_an_export_that_there_is_not(
    folder_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny_train(folder_data, tmp_path / "run", "export.precision=fp16", "export.opset=12")

    assert {problem.key for problem in caught.value.problems} == {
        "export.precision",
        "export.opset",
    }
    assert not (tmp_path / "run").exists()


@pytest.mark.promise("X1")
@pytest.mark.promise("C5")
def test_what_cannot_be_exported_is_told(
    copied_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_command(tmp_path) == ResumeError.exit_code
    assert export_command(copied_run, data_root=tmp_path / "gone") == DataError.exit_code
    (copied_run / "checkpoints" / "best.ckpt").unlink()
    assert export_command(copied_run) == ResumeError.exit_code

    told = capsys.readouterr().err
    for part in (str(tmp_path), "gone", "--data-root", "best.ckpt"):
        assert part in told
    assert "Traceback" not in told


@pytest.mark.promise("X1")
def test_moved_data_is_found_for_an_export(copied_run: Path, tmp_path: Path) -> None:
    moved = write_folder(tmp_path / "moved")
    record = json.loads((copied_run / "run.json").read_text())
    (copied_run / "run.json").write_text(json.dumps({**record, "data_root": "/nowhere"}))

    done = export(copied_run, data_root=moved)

    assert done.onnx == copied_run / "model.onnx"
    assert done.sidecar == copied_run / "labels_mapping.json"
    assert done.agreement.images == 24
    assert done.agreement.holds


@pytest.mark.promise("X1")
def test_a_stopped_run_can_be_exported(copied_run: Path) -> None:
    """A run of which only checkpoints, manifest and record are there, as a kill leaves it."""
    before = (copied_run / "model.onnx").read_bytes()
    for name in ("model.onnx", "labels_mapping.json"):
        (copied_run / name).unlink()
    shutil.rmtree(copied_run / "evaluation")
    RunFolder(copied_run).update_record({"status": "interrupted", "best": None})

    assert export_command(copied_run) == 0

    assert (copied_run / "model.onnx").read_bytes() == before
    assert Predictor.load(copied_run).class_map.names == CLASSES


@pytest.mark.promise("X5")
def test_a_class_map_of_another_run_is_not_taken_for_this_ones(
    tiny_run: Run, tmp_path: Path
) -> None:
    model = load_model(tiny_run.folder.best)
    other = dataclasses.replace(
        model.metadata, class_map=type(model.metadata.class_map)(("NO", "1e3", "00", "0"))
    )
    sidecar = json.loads(tiny_run.folder.sidecar.read_text())
    names = other.class_map.names
    sidecar["class_to_idx"] = {name: index for index, name in enumerate(names)}
    sidecar["idx_to_class"] = {str(index): name for index, name in enumerate(names)}
    shutil.copyfile(tiny_run.folder.onnx, tmp_path / "model.onnx")
    (tmp_path / "labels_mapping.json").write_text(json.dumps(sidecar))

    with pytest.raises(ExportError, match="differ in class_to_idx"):
        classifier_training.Predictor.load(tmp_path)


@pytest.mark.promise("I4")
@pytest.mark.promise("X2")
def test_the_options_of_the_commands_reach_what_they_name(
    copied_run: Path, folder_data: Path, tmp_path: Path
) -> None:
    record = json.loads((copied_run / "run.json").read_text())
    (copied_run / "run.json").write_text(json.dumps({**record, "data_root": "/nowhere"}))
    run, moved = str(copied_run), ["--data-root", str(folder_data)]
    out = tmp_path / "out"

    def command(*arguments: str) -> int:
        return CliRunner().invoke(app, arguments).exit_code

    assert command("export", run, "--opset", "17", *moved) == 2
    assert command("export", run, "--precision", "fp16", *moved) == 2
    assert command("export", run, "--input", "float16", *moved) == 2
    assert command("export", run, "--max-loss", "2", *moved) == 2
    assert command("export", run) == 3
    assert command("export", run, "--opset", "19", "--precision", "fp32", *moved) == 0
    assert [item.version for item in onnx.load(copied_run / "model.onnx").opset_import] == [19]
    options = ["--split", "val", "--out", str(out), "--batch-size", "3", "--device", "cpu"]
    assert command("evaluate", run, *options) == 3
    assert command("evaluate", run, *options, *moved) == 0
    assert json.loads((out / "metrics.json").read_text())["split"] == "val"
    assert command("evaluate", run, "--batch-size", "0", *moved) == 2
    assert command("verify", run, "--data", str(folder_data)) == 0
    assert command("verify", run) == 3
