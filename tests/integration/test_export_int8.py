"""int8: kept only if it is as good and faster here; fp32 stays as it is whatever happens."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from onnx import TensorProto, numpy_helper

from classifier_training.cli.export import ExportOptions, run_export
from classifier_training.cli.verify import run_verify
from classifier_training.errors import ExportError
from classifier_training.exporters.int8 import Int8Export, export_int8, spread
from classifier_training.exporters.latency import SpeedUp, measure_speed_up, speed_up
from classifier_training.exporters.onnx import export
from classifier_training.inference.predictor import Predictor
from classifier_training.inference.sidecar import SCHEMA_FILE, Sidecar, sha256_of
from classifier_training.inference.verification import verify_golden
from classifier_training.run.folder import RunFolder
from classifier_training.run.reader import Run
from tests.helpers.data import CLASSES
from tests.helpers.runs import tiny_train

SCHEMA = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
FP32 = ("model.onnx", "labels_mapping.json")
INT8 = ("model.int8.onnx", "labels_mapping.int8.json")


def clock(ratios: dict[int, float]) -> Callable[..., SpeedUp]:
    """A stopwatch of a machine on which int8 is that much faster, by batch size."""

    def measure(
        before: Callable[[], object], after: Callable[[], object], *, batch: int, pairs: int
    ) -> SpeedUp:
        before()
        after()
        low = ratios[batch]
        return SpeedUp(batch, 1.5 * low, 1.0, 1.5 * low, low)

    return measure


FAST = clock({1: 1.6, 32: 1.3})


def contents(folder: Path, names: tuple[str, ...]) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


def present(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.fixture
def run(tiny_run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.folder.path, tmp_path / "run"))


@pytest.fixture(scope="module")
def exported(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Int8Export:
    """An int8 export where int8 is fast. Do not write into it."""
    folder = tmp_path_factory.mktemp("int8") / "run"
    shutil.copytree(tiny_run.folder.path, folder)
    return export_int8(folder, stopwatch=FAST)


@pytest.mark.promise("X6")
def test_fp32_stays_and_int8_lies_beside_it(exported: Int8Export, tiny_run: Run) -> None:
    folder = exported.onnx.parent

    assert contents(folder, FP32) == contents(tiny_run.folder.path, FP32)
    assert sorted({*present(folder)} - {*present(tiny_run.folder.path)}) == sorted(INT8)


@pytest.mark.promise("X6")
def test_weights_are_int8_and_the_contract_is_that_of_the_model(exported: Int8Export) -> None:
    graph = onnx.load(exported.onnx).graph
    weights = [
        numpy_helper.to_array(item)
        for item in graph.initializer
        if item.data_type == TensorProto.INT8 and len(item.dims) > 1
    ]
    before, after = (
        json.loads((exported.onnx.parent / name).read_text()) for name in (FP32[1], INT8[1])
    )

    assert sorted(item.shape for item in weights) == [(4, 16), (8, 3, 3, 3), (16, 8, 3, 3)]
    # Seven bits: pairs of products must not overflow 16 bits on processors without VNNI.
    assert all(np.abs(item.astype(int)).max() <= 64 for item in weights)
    for key in ("num_classes", "class_to_idx", "idx_to_class", "normalization", "preprocessing"):
        assert after[key] == before[key]
    assert not list(Draft202012Validator(SCHEMA).iter_errors(after))
    assert after["model"]["precision"] == "int8"
    assert after["model"]["input"] == before["model"]["input"]
    assert after["provenance"]["run_id"] == before["provenance"]["run_id"]


@pytest.mark.promise("X6")
def test_the_predictor_takes_the_file_and_answers_nearly_the_same(
    exported: Int8Export, folder_data: Path
) -> None:
    paths = sorted((folder_data / "test").rglob("*.png"))
    fp32, int8 = (
        list(Predictor.load(path).predict(paths)) for path in (exported.onnx.parent, exported.onnx)
    )

    assert [item.label for item in int8] == [item.label for item in fp32]
    distances = [
        float(np.abs(one.probabilities - other.probabilities).max())
        for one, other in zip(fp32, int8, strict=True)
    ]
    assert 0 < max(distances) < 0.05  # another network, but not by much


@pytest.mark.promise("X6")
@pytest.mark.promise("X5")
def test_both_pairs_are_verified_and_not_exchanged(exported: Int8Export, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported.onnx.parent, tmp_path / "run"))

    assert all(item.holds for item in verify_golden(Predictor.load(folder / INT8[0])))
    assert run_verify(folder, data=None, backend="pil", debug=False) == 0
    shutil.copyfile(folder / FP32[1], folder / INT8[1])
    with pytest.raises(ExportError, match="its sidecar was written for"):
        Predictor.load(folder / INT8[0])
    assert run_verify(folder, data=None, backend="pil", debug=False) == 5
    (folder / INT8[1]).unlink()
    with pytest.raises(ExportError, match=r"labels_mapping\.int8\.json does not exist"):
        Predictor.load(folder / INT8[0])


@pytest.mark.promise("X6")
def test_the_sidecar_records_what_was_measured(exported: Int8Export) -> None:
    found = json.loads(exported.sidecar.read_text())["provenance"]["quantization"]

    assert found["val_images"] == 24
    assert found["calibration_images"] == 48  # all of train
    assert found["fp32"]["acc_top1"] - found["int8"]["acc_top1"] <= 0.01
    assert found["fp32"]["f1_macro"] - found["int8"]["f1_macro"] <= 0.01
    assert [item["batch"] for item in found["speed"]] == [1, 32]
    assert [item["at_least"] for item in found["speed"]] == [1.6, 1.3]
    assert found["of_model"] == sha256_of(exported.onnx.parent / "model.onnx")


@pytest.mark.promise("X6")
def test_calibration_is_fitted_to_the_int8_logits(exported: Int8Export) -> None:
    fp32, int8 = (Sidecar.read(exported.onnx.parent / name) for name in (FP32[1], INT8[1]))

    assert fp32.calibration is not None
    assert int8.calibration is not None
    assert int8.calibration != fp32.calibration
    assert int8.calibration.temperature == pytest.approx(fp32.calibration.temperature, rel=0.2)
    for name in ("unsure", "conformal", "energy"):
        assert (getattr(int8.calibration, name) is None) == (
            getattr(fp32.calibration, name) is None
        )


@pytest.mark.promise("X6")
@pytest.mark.parametrize("ratios", [{1: 0.9, 32: 2.0}, {1: 2.0, 32: 0.9}, {1: 1.0, 32: 1.0}])
def test_int8_that_is_not_faster_is_refused_with_the_numbers(
    run: Path, ratios: dict[int, float]
) -> None:
    before = contents(run, FP32)
    names = present(run)
    for name in INT8:
        (run / name).write_bytes(b"of an earlier export")

    with pytest.raises(ExportError) as caught:
        export_int8(run, stopwatch=clock(ratios))

    assert caught.value.exit_code == 5
    for size, low in ratios.items():
        assert f"batch {size}: {1.5 * low:.1f} ms, 1.0 ms" in str(caught.value)
        assert f"at least x{low:.2f}" in str(caught.value)
    assert "acc_top1" in str(caught.value)
    assert present(run) == names
    assert contents(run, FP32) == before


def drown(run: Path) -> None:
    """Let one channel be so large that 256 steps of its range leave nothing of the others."""
    path = run / "model.onnx"
    model = onnx.load(path)
    first, second = [node for node in model.graph.node if node.op_type == "Conv"]
    tensors = {item.name: item for item in model.graph.initializer}
    bias = numpy_helper.to_array(tensors[first.input[2]]).copy()
    weights = numpy_helper.to_array(tensors[second.input[1]]).copy()
    bias[0], weights[:, 0] = 1e6, 0
    tensors[first.input[2]].CopyFrom(numpy_helper.from_array(bias, first.input[2]))
    tensors[second.input[1]].CopyFrom(numpy_helper.from_array(weights, second.input[1]))
    path.write_bytes(model.SerializeToString())
    sidecar = json.loads((run / "labels_mapping.json").read_text())
    sidecar["model"]["sha256"] = sha256_of(path)
    (run / "labels_mapping.json").write_text(json.dumps(sidecar))


@pytest.mark.promise("X6")
def test_int8_that_loses_too_much_is_refused_with_the_numbers(run: Path) -> None:
    drown(run)
    before = contents(run, FP32)
    names = present(run)

    with pytest.raises(ExportError) as caught:
        export_int8(run, max_loss=0.02, stopwatch=FAST)

    told = str(caught.value)
    assert caught.value.exit_code == 5
    assert "int8 loses more than 0.02 on val: acc_top1 " in told
    for recipe in ("full range", "99.999 % of the range", "first and last layer in fp32"):
        assert recipe in told
    assert "--max-loss" in told
    assert present(run) == names
    assert contents(run, FP32) == before

    allowed = export_int8(run, max_loss=1.0, stopwatch=FAST)

    assert allowed.loss.worst > 0.02
    assert allowed.onnx.exists()


@pytest.mark.promise("X6")
def test_command_ends_with_5_exactly_when_no_file_is_left(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ExportOptions(18, "int8", "float32", 0.01, None)

    code = run_export(run, options, debug=False)

    told = capsys.readouterr().err
    assert code in (0, 5)  # that depends on the machine
    assert [(run / name).exists() for name in INT8] == [code == 0] * 2
    assert ("int8 is not faster than fp32 here" in told) == (code == 5)
    assert "Traceback" not in told
    assert Predictor.load(run).class_map.names == CLASSES


@pytest.mark.promise("X6")
def test_training_is_finished_whatever_becomes_of_int8(folder_data: Path, tmp_path: Path) -> None:
    refused = ""
    try:
        tiny_train(
            folder_data,
            tmp_path / "run",
            "trainer.max_epochs=1",
            "export.precision=int8",
            "export.int8_max_loss=1",
        )
    except ExportError as error:
        refused = str(error)

    assert not refused or "int8 is not faster" in refused
    folder = RunFolder(tmp_path / "run")
    assert folder.read_record()["status"] == "finished"
    assert "export_int8" in folder.read_record()["stages_s"]
    assert all(item.holds for item in verify_golden(Predictor.load(folder.path)))
    assert [(folder.path / name).exists() for name in INT8] == [not refused] * 2


@pytest.mark.promise("X6")
def test_a_new_export_of_another_checkpoint_takes_the_variants_away(
    exported: Int8Export, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(exported.onnx.parent, tmp_path / "run"))
    before = contents(run, INT8)

    export(run)
    assert contents(run, INT8) == before

    sidecar = json.loads((run / INT8[1]).read_text())
    sidecar["provenance"]["weights_sha256"] = "0" * 64
    (run / INT8[1]).write_text(json.dumps(sidecar))
    export(run)
    assert not any((run / name).exists() for name in INT8)


@pytest.mark.promise("X6")
def test_calibration_images_are_spread_over_the_classes() -> None:
    labels = np.repeat([0, 1, 2, 3], [1000, 3, 50, 1])

    chosen = spread(labels, 40)

    assert np.bincount(labels[chosen], minlength=4).tolist() == [18, 3, 18, 1]
    assert chosen.tolist() == sorted(set(chosen.tolist())) == spread(labels, 40).tolist()
    assert chosen[:18].max() > 100  # not the first of the class
    assert spread(labels, 5000).tolist() == list(range(1054))


@pytest.mark.promise("X6")
def test_speed_is_a_median_of_pairs_with_its_interval() -> None:
    seconds = np.ones((21, 2))
    seconds[:, 0] = np.arange(1, 22)

    found = speed_up(seconds, batch=8)

    # Of 21 fair coins at most 5 show heads in 1.3 %, at most 6 in 3.9 % of cases.
    assert (found.batch, found.ratio, found.low) == (8, 11, 6)
    assert (found.before_ms, found.after_ms) == (11_000, 1000)


@pytest.mark.promise("X6")
def test_two_models_are_timed_in_turn() -> None:
    order: list[str] = []

    def run(name: str, seconds: float) -> Callable[[], None]:
        return lambda: (order.append(name), time.sleep(seconds))[1]

    found = measure_speed_up(run("a", 0.01), run("b", 0.001), batch=1, pairs=7)

    assert found.ratio > 1.5
    assert order == list("ab" + "ab" + "ba" + "ab" + "ba" + "ab" + "ba" + "ab")
