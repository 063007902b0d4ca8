"""How the exported model is used, and how the run is made again."""

from __future__ import annotations

import shlex
from typing import Any

from classifier_training.report.content import Deployment, Fact
from classifier_training.report.stored import StoredReportData
from classifier_training.report.words import duration, size
from classifier_training.runtime.sidecar import INPUT_NAME, OUTPUT_NAME

_WITH_PACKAGE = """\
# pip install classifier-training  (no torch)
from classifier_training import Predictor

predictor = Predictor.load("{run}")
for found in predictor.predict(["photo.jpg"]):
    print(found.path, found.label, found.confidence)
"""

_WITHOUT_PACKAGE = """\
import json, numpy as np, onnxruntime

sidecar = json.load(open("labels_mapping.json", encoding="utf-8"))
norm, names = sidecar["normalization"], sidecar["idx_to_class"]
mean, std = np.float32(norm["mean"]), np.float32(norm["std"])
session = onnxruntime.InferenceSession("model.onnx")

# pixels: (N, {side}, {side}, 3) RGB, 0..255, "{resize}"
images = (np.float32(pixels) / 255 - mean) / std
feed = {{"{input}": images.transpose(0, 3, 1, 2)}}
logits = session.run(["{output}"], feed)[0]
labels = [names[str(index)] for index in logits.argmax(1)]
"""


def deployment_of(data: StoredReportData) -> Deployment | None:
    """Say how to use the export; None without one."""
    sidecar = data.sidecar
    if sidecar is None or not data.folder.onnx.is_file():
        return None
    model, prepared = sidecar["model"], sidecar["preprocessing"]
    side = prepared["image_size"]
    return Deployment(
        files=(
            Fact("model.onnx", f"{size(data.folder.onnx.stat().st_size)}, opset {model['opset']}"),
            Fact("SHA-256", str(model["sha256"])),
            Fact("Input", f"{INPUT_NAME}: float32 (N, 3, {side}, {side}), normalised"),
            Fact("Resize", f"{prepared['resize']}, {prepared['interpolation']}"),
        ),
        with_package=_WITH_PACKAGE.format(run=data.folder.path),
        without_package=_WITHOUT_PACKAGE.format(
            side=side, resize=prepared["resize"], input=INPUT_NAME, output=OUTPUT_NAME
        ),
    )


def environment_of(data: StoredReportData) -> tuple[Fact, ...]:
    """Return machine, versions and times."""
    record = data.record
    hardware: dict[str, Any] = record.get("hardware") or {}
    times = record.get("stages_s") or {}
    facts = [
        Fact("Device", str(hardware.get("device", "not recorded"))),
        Fact("Precision", f"{hardware.get('precision')} ({hardware.get('reason')})"),
        Fact("Machine", f"{hardware.get('platform')}, {hardware.get('cores')} cores"),
        *(Fact(name, str(version)) for name, version in (record.get("versions") or {}).items()),
    ]
    if times:
        told = ", ".join(f"{stage} {duration(float(taken))}" for stage, taken in times.items())
        facts.insert(0, Fact("Time", told))
    return tuple(facts)


def model_of(data: StoredReportData) -> tuple[Fact, ...]:
    """Return what ``model_info.json`` says, key by key."""
    return tuple(
        Fact(key.replace("_", " "), f"{value:,}" if isinstance(value, int | float) else str(value))
        for key, value in (data.model_info or {}).items()
        if key != "schema_version" and isinstance(value, int | float | str)
    )


def reproduction_of(data: StoredReportData) -> tuple[Fact, ...]:
    """Return what besides the command it takes to make the run again."""
    record = data.record
    git = record.get("git")
    code = "not a git checkout"
    if git:
        code = git["commit"] + (", with uncommitted changes" if git["dirty"] else "")
    facts = [
        Fact("Seed", str(record["seed"])),
        Fact("Code", code),
        Fact("Data", f"{record['data_root']}, fingerprint {record['data_fingerprint']}"),
        Fact("Configuration", f"hash {record['config_hash']}"),
    ]
    if record.get("parent"):
        facts.append(Fact("Begun from", str(record["parent"])))
    facts += [Fact("Changed on the way", str(change)) for change in record.get("changes") or ()]
    return tuple(facts)


def again(command: str) -> str:
    """Return a recorded command without the run's own folder, which it may not write to twice."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    if command.startswith("train("):
        return f"from classifier_training import train\n\n{command}"
    kept = [word for word in words if not word.startswith("hydra.run.dir=")]
    return shlex.join(kept) if len(kept) < len(words) else command
