"""The sidecar: enough to reimplement preprocessing, and never believed when it does not match."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from classifier_training.config.choices import RESIZE_MODES, ResizeMode
from classifier_training.errors import ExportError
from classifier_training.inference.predictor import Predictor
from classifier_training.inference.sidecar import sha256_of
from classifier_training.inference.verification import verify_golden
from classifier_training.run.reader import Run
from tests.helpers.independent import tensor_of
from tests.helpers.onnx_pair import change_metadata, write_network, write_pair
from tests.helpers.pixels import noise

HOSTILE = ("0", "00", "08", "1e3", "NO", "null", "é", "a/b", "<script>", "=cmd", 'q"q', "x\ny", " ")


def independent_check(folder: Path) -> int:
    """Replay the golden vectors with the reader that imports nothing of ours."""
    sidecar = json.loads((folder / "labels_mapping.json").read_text(encoding="utf-8"))
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    for vector in sidecar["golden"]:
        tensor = tensor_of(sidecar, base64.b64decode(vector["png_base64"]))
        np.testing.assert_allclose(
            tensor.mean((0, 2, 3), dtype=np.float64), vector["tensor_mean"], atol=1e-4
        )
        np.testing.assert_allclose(
            tensor.std((0, 2, 3), dtype=np.float64), vector["tensor_std"], atol=1e-4
        )
        logits = session.run(["logits"], {"input": tensor})[0][0]
        scale = max(1.0, np.abs(vector["logits"]).max())
        np.testing.assert_allclose(logits, vector["logits"], atol=2e-5 * scale, rtol=0)
    return len(sidecar["golden"])


@pytest.mark.promise("X4")
@pytest.mark.parametrize("size", [15, 64, 224])
@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_independent_reader_reproduces_the_golden_vectors(
    tmp_path: Path, resize: ResizeMode, size: int
) -> None:
    folder = write_pair(tmp_path, size=size, resize=resize)

    assert independent_check(folder) == 3
    assert all(result.holds for result in verify_golden(Predictor.load(folder)))


@pytest.mark.promise("X4")
def test_independent_reader_reproduces_a_real_export(tiny_run: Run) -> None:
    assert independent_check(tiny_run.folder.path) == 3


@pytest.mark.promise("X4")
@pytest.mark.parametrize("resize", RESIZE_MODES)
@pytest.mark.parametrize("other", RESIZE_MODES)
def test_golden_vectors_tell_resize_modes_apart(
    tmp_path: Path, resize: ResizeMode, other: ResizeMode
) -> None:
    write_pair(tmp_path, resize=resize)
    path = tmp_path / "labels_mapping.json"
    sidecar = json.loads(path.read_text())
    sidecar["preprocessing"]["resize"] = other
    path.write_text(json.dumps(sidecar))

    if other == resize:
        assert independent_check(tmp_path) == 3
    else:
        with pytest.raises(AssertionError):
            independent_check(tmp_path)


@pytest.mark.promise("X4")
@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_independent_reader_agrees_on_photographs(tmp_path: Path, resize: ResizeMode) -> None:
    predictor = Predictor.load(write_pair(tmp_path, size=32, resize=resize))
    sidecar = json.loads((tmp_path / "labels_mapping.json").read_text())

    for seed, size in enumerate([(50, 31), (31, 50), (33, 33), (7, 200), (200, 7), (32, 32)]):
        ours = predictor.spec.normalize(predictor.spec.load(noise(seed, size), "x")[None])
        np.testing.assert_allclose(tensor_of(sidecar, noise(seed, size)), ours, atol=1e-6)


@pytest.mark.promise("D2")
@pytest.mark.promise("S2")
def test_names_are_verbatim_in_sidecar_and_onnx(tmp_path: Path) -> None:
    predictor = Predictor.load(write_pair(tmp_path, classes=HOSTILE))
    sidecar = json.loads((tmp_path / "labels_mapping.json").read_text(encoding="utf-8"))
    session = ort.InferenceSession(str(tmp_path / "model.onnx"))
    stored = session.get_modelmeta().custom_metadata_map

    expected = {name: at for at, name in enumerate(HOSTILE)}
    assert sidecar["num_classes"] == len(HOSTILE)
    assert sidecar["class_to_idx"] == expected
    assert sidecar["idx_to_class"] == {str(at): name for name, at in expected.items()}
    assert json.loads(stored["class_to_idx"]) == expected
    assert json.loads(stored["normalization"]) == sidecar["normalization"]
    assert predictor.class_map.names == HOSTILE


Edit = Callable[[dict[str, Any]], object]


def swap_classes(content: dict[str, Any]) -> None:
    content["class_to_idx"] = {"00": 0, "0": 1, "NO": 2}
    content["idx_to_class"] = {"0": "00", "1": "0", "2": "NO"}


def rename_class(content: dict[str, Any]) -> None:
    content["class_to_idx"] = {"0": 0, "00": 1, "no": 2}
    content["idx_to_class"] = {"0": "0", "1": "00", "2": "no"}


def put(*keys: Any) -> Edit:
    """Set the value (last) at a path of keys."""

    def edit(content: Any) -> None:
        for key in keys[:-2]:
            content = content[key]
        content[keys[-2]] = keys[-1]

    return edit


def drop(*keys: Any) -> Edit:
    """Delete at a path of keys."""

    def edit(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return edit


EDITS: dict[str, tuple[Edit, str]] = {
    "classes swapped": (swap_classes, "differ in class_to_idx"),
    "class renamed": (rename_class, "differ in class_to_idx"),
    "maps contradict": (put("class_to_idx", {"0": 1, "00": 0, "NO": 2}), "contradict each other"),
    "class lost": (drop("idx_to_class", "1"), "misses key '1'"),
    "class too many": (put("idx_to_class", "3", "x"), "contradict each other"),
    "fewer classes": (put("num_classes", 2), "contradict each other"),
    "more classes": (put("num_classes", 10**9), "misses key"),
    "classes as text": (put("num_classes", "3"), "is odd"),
    "name no text": (put("idx_to_class", "1", 7), "is not a non-empty string"),
    "name twice": (put("idx_to_class", "1", "0"), "stand twice"),
    "other mean": (put("normalization", "mean", [0.5, 0.5, 0.5]), "preprocessing section"),
    "mean in 0..255": (put("normalization", "mean", [124, 116, 104]), "mean must be"),
    "other std": (put("normalization", "std", [0.5, 0.5, 0.5]), "differ in normalization"),
    "zero std": (put("normalization", "std", [0, 1, 1]), "must be positive"),
    "nan std": (put("normalization", "std", [float("nan"), 1, 1]), "finite"),
    "infinite mean": (put("normalization", "mean", [float("inf"), 0, 0]), "finite"),
    "two channels": (put("normalization", "std", [0.2, 0.2]), "3 finite numbers"),
    "std as text": (put("normalization", "std", "abc"), "is odd"),
    "other size": (put("preprocessing", "image_size", 17), "differ in preprocessing"),
    "size as text": (put("preprocessing", "image_size", "16"), "preprocessing section"),
    "size infinite": (put("preprocessing", "image_size", float("inf")), "is odd"),
    "size zero": (put("preprocessing", "image_size", 0), "must be positive"),
    "other resize": (put("preprocessing", "resize", "pad"), "preprocessing section"),
    "unknown resize": (put("preprocessing", "resize", "stretch"), "'stretch' is unknown"),
    "other filter": (put("preprocessing", "interpolation", "nearest"), "preprocessing section"),
    "BGR": (put("preprocessing", "color_order", "BGR"), "preprocessing section"),
    "unknown rule": (put("preprocessing", "gamma", 2.2), "preprocessing section"),
    "newer schema": (put("schema_version", 99), "schema_version 99 is unknown"),
    "no schema": (drop("schema_version"), "misses key 'schema_version'"),
    "no normalization": (drop("normalization"), "misses key 'normalization'"),
    "no hash": (drop("model", "sha256"), "misses key 'sha256'"),
    "hash no text": (put("model", "sha256", 7), "must be text"),
    "other hash": (put("model", "sha256", "0" * 64), "its sidecar was written for"),
    "input no object": (put("model", "input", "float32"), "model.input must be an object"),
    "tolerance of anything": (put("model", "golden_tolerance", 1e9), "golden_tolerance must be"),
    "tolerance zero": (put("model", "golden_tolerance", 0), "golden_tolerance must be"),
    "tolerance nan": (put("model", "golden_tolerance", float("nan")), "golden_tolerance must be"),
    "tolerance as text": (put("model", "golden_tolerance", "wide"), "is odd"),
    "pixels for tensors": (
        put("model", "input", {"name": "input", "dtype": "uint8", "shape": ["batch", 16, 16, 3]}),
        "which its sidecar contradicts",
    ),
    "model no object": (put("model", None), "is odd"),
    "no golden": (put("golden", []), "no golden vectors"),
    "golden no base64": (put("golden", 0, "png_base64", "!!"), "is odd"),
    "golden no image": (put("golden", 0, "png_base64", "AAAA"), "golden vector"),
    "golden statistics lost": (put("golden", 1, "tensor_mean", []), "3 finite numbers"),
    "golden statistics text": (put("golden", 1, "tensor_std", ["a", "b", "c"]), "is odd"),
    "golden statistics off": (put("golden", 1, "tensor_std", [1, 2, 3]), "is not reproduced"),
    "golden logits short": (put("golden", 2, "logits", [0.0]), "3 finite numbers"),
    "golden logits nan": (put("golden", 2, "logits", [float("nan")] * 3), "finite"),
    "golden logits off": (put("golden", 2, "logits", [9.0, 9.0, 9.0]), "is not reproduced"),
}


def refused(folder: Path) -> str:
    with pytest.raises(ExportError) as caught:
        verify_golden(Predictor.load(folder))
    error = caught.value
    assert error.exit_code == 5
    assert error.expected
    assert error.fix
    return str(error)


@pytest.mark.promise("X5")
@pytest.mark.parametrize("name", sorted(EDITS))
def test_sidecar_that_does_not_match_is_refused(tmp_path: Path, name: str) -> None:
    edit, expected = EDITS[name]
    path = write_pair(tmp_path) / "labels_mapping.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))

    assert expected in refused(tmp_path)


@pytest.mark.promise("X5")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "is not readable JSON"),
        (b"{", "is not readable JSON"),
        (b"\xff\xfe", "is not readable JSON"),
        (b"[" * 200_000, "is not readable JSON"),
        (b'{"schema_version": ' + b"1" * 5000 + b"}", "is not readable JSON"),
        (b"[]", "is odd"),
        (b"null", "is odd"),
        (b'{"schema_version": 1}', "misses key"),
    ],
)
def test_sidecar_that_is_no_sidecar_is_refused(tmp_path: Path, text: bytes, expected: str) -> None:
    (write_pair(tmp_path) / "labels_mapping.json").write_bytes(text)

    assert expected in refused(tmp_path)


@pytest.mark.promise("X5")
def test_half_a_sidecar_is_refused(tmp_path: Path) -> None:
    path = write_pair(tmp_path) / "labels_mapping.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    assert "is not readable JSON" in refused(tmp_path)


@pytest.mark.promise("X5")
@pytest.mark.parametrize("lost", ["labels_mapping.json", "model.onnx"])
def test_half_a_pair_is_refused(tmp_path: Path, lost: str) -> None:
    (write_pair(tmp_path) / lost).unlink()

    assert "does not exist" in refused(tmp_path) or "no ONNX model at" in refused(tmp_path)


@pytest.mark.promise("X5")
@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x08\x09" * 40])
def test_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    (write_pair(tmp_path) / "model.onnx").write_bytes(content)

    refused(tmp_path)


@pytest.mark.promise("X5")
def test_onnx_of_another_export_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "a", seed=1)
    write_pair(tmp_path / "b", seed=2)
    (tmp_path / "a/model.onnx").write_bytes((tmp_path / "b/model.onnx").read_bytes())

    assert "its sidecar was written for" in refused(tmp_path / "a")


def adopt(folder: Path) -> None:
    """Make the sidecar name the ONNX file that is there now."""
    path = folder / "labels_mapping.json"
    content = json.loads(path.read_text())
    content["model"]["sha256"] = sha256_of(folder / "model.onnx")
    path.write_text(json.dumps(content))


@pytest.mark.promise("X5")
def test_weights_changed_behind_a_new_hash_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "a", seed=1)
    write_pair(tmp_path / "b", seed=2)
    (tmp_path / "a/model.onnx").write_bytes((tmp_path / "b/model.onnx").read_bytes())
    adopt(tmp_path / "a")

    assert "is not reproduced" in refused(tmp_path / "a")


@pytest.mark.promise("X5")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_to_idx", '{"00": 0, "0": 1, "NO": 2}'),
        ("class_to_idx", ""),
        ("normalization", '{"mean": [0, 0, 0], "std": [1, 1, 1]}'),
        ("preprocessing", "{}"),
    ],
)
def test_metadata_that_differs_is_refused(tmp_path: Path, key: str, value: str) -> None:
    write_pair(tmp_path)
    change_metadata(tmp_path / "model.onnx", {key: value})
    adopt(tmp_path)

    assert f"differ in {key}" in refused(tmp_path)


@pytest.mark.promise("X5")
@pytest.mark.parametrize(
    ("size", "outputs", "input_name", "expected"),
    [
        (16, 4, "input", "logits is tensor(float) of shape"),
        (32, 3, "input", "input is tensor(float) of shape"),
        (16, 3, "images", "has inputs ['images']"),
    ],
)
def test_network_of_another_shape_is_refused(
    tmp_path: Path, size: int, outputs: int, input_name: str, expected: str
) -> None:
    write_pair(tmp_path)
    session = ort.InferenceSession(str(tmp_path / "model.onnx"))
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    write_network(
        tmp_path / "model.onnx", metadata, size=size, outputs=outputs, input_name=input_name
    )
    adopt(tmp_path)

    assert expected in refused(tmp_path)
