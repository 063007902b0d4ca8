"""Sections that are read from a file each: curves, data, classes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from classifier_training.inference.sidecar import INPUT_NAME, OUTPUT_NAME
from classifier_training.report.charts import Box, Chart, Frame, Line, Tick, line_chart, nice_ticks
from classifier_training.report.content import (
    ClassRow,
    Curves,
    DataSection,
    Deployment,
    Fact,
    FindingShown,
    Table,
)
from classifier_training.report.formatting import Interval, count, quoted_name, size
from classifier_training.run.reader import Run, StoredEvaluation
from classifier_training.system.progress import duration

_MOST_ITEMS = 5
_SEVERITIES = {"error": 0, "warning": 1, "note": 2}
_CURVES = {
    "loss": "Loss",
    "acc_top1": "Accuracy (top-1)",
    "f1_macro": "Macro F1",
}


def curves_of(data: Run) -> Curves | None:
    """Draw loss, accuracy and macro F1 over the epochs; None without a history."""
    if not data.history:
        return None
    best = data.record.get("best")
    best_epoch = None if best is None else int(best["epoch"]) + 1
    charts = [
        chart
        for name, title in _CURVES.items()
        if (chart := _curve(data.history, name, title, best_epoch)) is not None
    ]
    names = [name for name in data.history[0] if name not in ("epoch", "step")]
    columns = ("epoch", *names)
    rows = tuple(
        (
            f"{int(row['epoch']) + 1}{' (best)' if int(row['epoch']) + 1 == best_epoch else ''}",
            *(f"{row[name]:.4g}" if name in row else "" for name in names),
        )
        for row in data.history
    )
    return Curves(tuple(charts), Table(columns, rows))


def _curve(
    history: list[dict[str, float]], name: str, title: str, best_epoch: int | None
) -> Chart | None:
    lines = []
    for prefix, shown in (("train", "train"), ("val", "val"), ("val_raw", "val, raw weights")):
        key = f"{prefix}/{name}"
        points = tuple(
            (row["epoch"] + 1, row[key])
            for row in history
            if key in row and math.isfinite(row[key])
        )
        if points:
            lines.append(Line(shown, f"s-{prefix.replace('_', '-')}", points))
    if not lines:
        return None
    ends = ", ".join(f"{line.name} {line.points[-1][1]:.3f}" for line in lines)
    summary = f"{title} over {count(len(history), 'epoch')}; after the last one {ends}."
    mark = None
    if best_epoch is not None:
        mark = (best_epoch, f"best: epoch {best_epoch}")
        summary += f" The best epoch is {best_epoch}."
    return line_chart(title, summary, "Epoch", lines, mark=mark, whole_x=True)


def data_of(data: Run) -> DataSection | None:
    """Describe the data; None without statistics."""
    if not data.statistics:
        return None
    splits = data.statistics["splits"]
    rows = [
        (
            name,
            f"{facts['images']:,}",
            f"{facts['classes_present']:,} of {data.statistics['num_classes']:,}",
            f"{facts['imbalance_ratio']:.1f}\u202fx",
            _median_size(facts),
        )
        for name, facts in splits.items()
    ]
    skipped = data.statistics.get("skipped", {})
    notes = [f"Rows left out: {number:,} ({reason})" for reason, number in skipped.items()]
    notes += [str(note) for note in data.statistics.get("notes", ())]
    findings = sorted(data.findings, key=lambda item: _SEVERITIES.get(str(item.get("severity")), 3))
    return DataSection(
        splits=Table(
            ("Split", "Images", "Classes", "Most over least frequent", "Median size"), tuple(rows)
        ),
        counts=_counts_chart(splits.get("train", {}).get("per_class", {})),
        is_checked=data.findings is not None,
        # Facts of the images exist where all of them were decoded.
        is_decoded=any("width" in facts for facts in splits.values()),
        findings=tuple(_finding(item) for item in findings),
        notes=tuple(notes),
    )


def _median_size(facts: Mapping[str, Any]) -> str:
    if "width" not in facts:
        return "not measured"
    return f"{facts['width']['median']:.0f} × {facts['height']['median']:.0f}"  # noqa: RUF001


def _counts_chart(per_class: Mapping[str, int]) -> Chart | None:
    ranked = sorted(per_class.items(), key=lambda pair: (-pair[1], pair[0]))
    if not ranked:
        return None
    most = max(1, ranked[0][1])
    ticks = nice_ticks(0, most, most=4, whole=True)
    frame = Frame(0, len(ranked), 0, max(most, ticks[-1]))
    gap = 0.16 if len(ranked) <= 100 else 0.0
    boxes = tuple(
        Box(
            x=frame.x(place + gap / 2),
            y=frame.y(images),
            width=round(frame.x(place + 1 - gap / 2) - frame.x(place + gap / 2), 2),
            height=round(frame.y(0) - frame.y(images), 2),
            text=f"{name}: {images:,}",
        )
        for place, (name, images) in enumerate(ranked)
    )
    low = ranked[-1]
    return Chart(
        title="Training images of each class",
        summary=f"{count(len(ranked), 'class', 'classes')}, from {ranked[0][1]:,} "
        f"({quoted_name(ranked[0][0])}) down to {low[1]:,} ({quoted_name(low[0])}).",
        x_title="Classes, the most frequent first",
        x_ticks=(),
        y_ticks=tuple(Tick(frame.y(tick), f"{tick:g}") for tick in ticks),
        lines=(),
        boxes=boxes,
    )


def _finding(content: Mapping[str, Any]) -> FindingShown:
    items = content.get("items", ())
    return FindingShown(
        severity=str(content["severity"]),
        code=str(content["code"]),
        message=str(content["message"]),
        fix=str(content["fix"]),
        items=tuple(_item(item) for item in items[:_MOST_ITEMS]),
        more=max(0, len(items) - _MOST_ITEMS),
    )


def _item(content: Mapping[str, Any]) -> str:
    files = " = ".join(str(image["path"]) for image in content.get("images", ()))
    detail = str(content.get("detail", ""))
    return f"{files}: {detail}" if files and detail else files or detail


def classes_of(data: Run, split: StoredEvaluation) -> tuple[ClassRow, ...]:
    """Return a row a class, the worst recall first and classes without images last."""
    trained = data.statistics.get("splits", {}).get("train", {}).get("per_class", {})
    wrong = split.confusion.copy()
    rows = []
    for index, row in enumerate(split.per_class):
        wrong[index, index] = 0
        other = int(wrong[index].argmax())
        taken = int(wrong[index, other])
        rows.append(
            ClassRow(
                index=index,
                name=row["class"],
                train=trained.get(row["class"]),
                support=int(row["support"]),
                recall=_interval(row, "recall"),
                precision=_interval(row, "precision"),
                f1=_interval(row, "f1"),
                mostly=split.classes[other] if taken else "",
                mostly_index=other if taken else None,
                mostly_count=taken,
            )
        )
    rows.sort(key=lambda row: 2.0 if row.recall is None else row.recall.value)
    return tuple(rows)


def _interval(row: Mapping[str, str], key: str) -> Interval | None:
    if not row[f"{key}_low"]:
        return None
    return Interval(float(row[key]), float(row[f"{key}_low"]), float(row[f"{key}_high"]))


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


def deployment_of(data: Run) -> Deployment | None:
    """Say how to use the export; None without one."""
    sidecar = data.sidecar
    if not sidecar or not data.folder.onnx.is_file():
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


def environment_of(data: Run) -> tuple[Fact, ...]:
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


def model_of(data: Run) -> tuple[Fact, ...]:
    """Return what ``model_info.json`` says, key by key."""
    return tuple(
        Fact(key.replace("_", " "), f"{value:,}" if isinstance(value, int | float) else str(value))
        for key, value in data.model_info.items()
        if key != "schema_version" and isinstance(value, int | float | str)
    )


def reproduction_of(data: Run) -> tuple[Fact, ...]:
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
