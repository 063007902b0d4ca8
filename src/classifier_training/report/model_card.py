"""``MODEL_CARD.md``: what somebody who is handed the model must know, from the run folder alone.

The front matter is that of the Hugging Face Hub (``model-index``), so the card may be uploaded with
the model as its README. The licence is left to whoever publishes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import yaml

from classifier_training.config.registry import BACKBONES
from classifier_training.inference.sidecar import sha256_of
from classifier_training.models.weights import PUBLISHED
from classifier_training.report.card_sections import limits, score_sections, shown
from classifier_training.report.markdown import block, bullets, printable, table, text
from classifier_training.run.folder import RunFolder
from classifier_training.run.reader import Run
from classifier_training.system.files import replacing

# What each resize mode is with Pillow; the rule in words stands in the preprocessing block.
_RESIZE = {
    "squash": """\
image = image.resize((size, size), Image.Resampling.BILINEAR)""",
    "pad": """\
scale = size / max(image.size)
sides = [min(size, max(1, math.floor(side * scale + 0.5))) for side in image.size]
square = Image.new("RGB", (size, size), tuple(sidecar["preprocessing"]["pad_color"]))
corner = tuple((size - side) // 2 for side in sides)
square.paste(image.resize(sides, Image.Resampling.BILINEAR), corner)
image = square""",
    "crop": """\
scale = size / min(image.size)
sides = [max(size, math.floor(side * scale + 0.5)) for side in image.size]
left, top = ((side - size) // 2 for side in sides)
image = image.resize(sides, Image.Resampling.BILINEAR)
image = image.crop((left, top, left + size, top + size))""",
}

_WITH_PACKAGE = """\
import sys

from classifier_training import Predictor

for answer in Predictor.load("model.onnx").predict(sys.argv[1:]):
    print(answer.path, answer.label, f"{answer.confidence:.6f}")
"""

_ALONE = """\
import json
{imports}import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

with open("labels_mapping.json", encoding="utf-8") as file:
    sidecar = json.load(file)
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
size = sidecar["preprocessing"]["image_size"]
mean = np.float32(sidecar["normalization"]["mean"])
std = np.float32(sidecar["normalization"]["std"])

for path in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
{resize}
    pixels = np.asarray(image, dtype=np.float32)
    tensor = ((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1)[None]
    logits = session.run(["logits"], {{"input": tensor}})[0][0]
    shares = np.exp(logits - logits.max())
    best = int(logits.argmax())
    print(path, sidecar["idx_to_class"][str(best)], f"{{shares[best] / shares.sum():.6f}}")
"""


def preprocessing(run: Run) -> Iterator[str]:
    """Yield the section on preprocessing: the sidecar's own words, all of them."""
    yield "## Preprocessing"
    yield (
        "The scores hold for this preprocessing alone. Normalisation is not in the graph. The "
        "golden vectors of `labels_mapping.json` check another implementation."
    )
    complete = {key: run.sidecar[key] for key in ("preprocessing", "normalization")}
    yield block(json.dumps(complete, indent=2, ensure_ascii=False), "json")


def how_to_use(run: Run) -> Iterator[str]:
    """Yield the section with programs; each takes image files as arguments."""
    yield "## How to use it"
    yield "Beside `model.onnx` and `labels_mapping.json`, with the package:"
    yield block(_WITH_PACKAGE, "python")
    yield "Or with numpy, Pillow and onnxruntime alone, for opaque images of 8 bits:"
    yield block(_program(run.sidecar["preprocessing"]["resize"]), "python")


def _program(resize: str) -> str:
    lines = "\n".join(f"    {line}" for line in _RESIZE[resize].splitlines())
    return _ALONE.format(imports="import math\n" if "math." in lines else "", resize=lines)


# Above these many classes their counts are summed up instead of listed.
_MOST_CLASSES = 100
# Metric types that the Hub knows, by our names.
_HUB_METRICS = {
    "acc_top1": ("accuracy", "top-1 accuracy"),
    "f1_macro": ("f1", "macro F1"),
    "precision_macro": ("precision", "macro precision"),
    "acc_macro": ("recall", "balanced accuracy"),
}


def write_model_card(folder: RunFolder) -> Path:
    """Write ``MODEL_CARD.md`` of an exported run.

    Raises:
        ResumeError: The folder is no run.
        OSError: A file of the run is missing, or the card cannot be written.
        ValueError: A file of the run is damaged.
    """
    run = Run(folder.path)
    # A path or command may hold bytes that are no text.
    content = model_card(run).encode("utf-8", "backslashreplace")
    with replacing(folder.model_card) as temporary:
        temporary.write_bytes(content)
    return folder.model_card


def model_card(run: Run) -> str:
    """Return the card as Markdown."""
    classes = run.sidecar["num_classes"]
    parts = [
        f"# {text(_name(run))}",
        _headline(run),
        "## The model",
        bullets(_model(run)),
        "## Data",
        bullets(_data(run)),
        *_class_counts(run, classes),
        *score_sections(run),
        *preprocessing(run),
        *how_to_use(run),
        "## Files",
        _files(run),
        "## How it was made",
        *_made(run),
        "## Limits",
        bullets(limits(run)),
    ]
    return f"{_front_matter(run)}\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(run: Run) -> str:
    """Return the metadata that the Hub reads, without a licence: that is the publisher's."""
    split = run.reported_split
    metrics = run.metrics(split)["metrics"]
    found = [
        {"type": kind, "name": name, "value": round(metrics[key]["value"], 4)}
        for key, (kind, name) in _HUB_METRICS.items()
    ]
    data = printable(_data_name(run))
    result = {
        "task": {"type": "image-classification", "name": "Image Classification"},
        "dataset": {"type": data, "name": data, "split": split},
        "metrics": found,
    }
    content = {
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", run.sidecar["model"]["architecture"]],
        "metrics": [item["type"] for item in found],
        "model-index": [{"name": printable(_name(run)), "results": [result]}],
    }
    written = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return f"---\n# license: to be chosen by whoever publishes the model\n{written}---"


def _headline(run: Run) -> str:
    split, card = run.reported_split, run.sidecar
    metrics = run.metrics(split)
    return (
        f"{text(card['model']['architecture'])} that classifies images into "
        f"{card['num_classes']} classes. Top-1 accuracy on {metrics['images']:,} {split} images: "
        f"{shown(metrics['metrics']['acc_top1'])} (95 % interval); always answering the most "
        f"frequent class gives {metrics['majority_class_accuracy']:.3f}."
    )


def _model(run: Run) -> Iterator[str]:
    card = run.sidecar
    model, origin = card["model"], card["provenance"]
    size = card["preprocessing"]["image_size"]
    yield f"Architecture: {text(model['architecture'])} with a linear head."
    yield (
        f"Input `{model['input']['name']}`: float32 (batch, 3, {size}, {size}), normalised. "
        f"Output `{model['output']['name']}`: (batch, {card['num_classes']}). ONNX opset "
        f"{model['opset']}, {model['precision']}."
    )
    yield (
        f"Exported weights: {origin['weights']}, of epoch {origin['epoch'] + 1} of "
        f"{run.record['max_epochs']}."
    )
    yield f"Started from {_start(run.config, run.record)}."


def _start(config: dict[str, Any], record: dict[str, Any]) -> str:
    model = config["model"]
    if record["parent"]:
        return f"the checkpoint {_file(record['parent'])} of another run; its licence applies too"
    if model["init_from"]:
        return f"the weights of the run {_file(model['init_from'])}; their licence applies too"
    if model["weights"] is None:
        return "random weights: nothing pretrained is in it"
    frozen = (
        "; the backbone was kept as it is, only the head was trained" if model["freeze"] else ""
    )
    if model["weights"] != PUBLISHED:
        return f"the weights file {_file(model['weights'])}; its licence applies too{frozen}"
    weights = BACKBONES[model["name"]].weights
    return (
        f"torchvision's {text(str(weights))} (<{weights.url}>), pretrained on other images. "
        "torchvision is under the BSD 3-Clause licence, but says that pretrained weights may "
        f"have terms of their own that come from their training data: look before use{frozen}"
    )


def _data(run: Run) -> Iterator[str]:
    config, statistics = run.config["data"], run.statistics
    paths = [config[f"{split}_path"] for split in ("train", "val", "test")]
    named = "".join(f", {_file(path)}" for path in paths if path)
    yield f"Source: {text(_data_name(run))} ({config['source']}{named})."
    for split, content in statistics["splits"].items():
        yield (
            f"{split}: {content['images']:,} images of {content['classes_present']} classes; "
            f"imbalance (most frequent over rarest) {content['imbalance_ratio']:.3g}."
        )
    for reason, count in statistics["skipped"].items():
        yield f"Left out: {count:,} rows, {text(str(reason), 200)}."
    for note in statistics["notes"]:
        yield f"{text(note, 300)}"
    found = [item for item in run.findings if item["severity"] == "warning"]
    for item in found:
        yield f"Warning of the data check: {text(item['message'], 300)} (`{item['code']}`)."
    if not found:
        yield "The data check gave no warnings."
    yield f"Fingerprint of images, labels and splits: `{run.record['data_fingerprint']}`."


def _class_counts(run: Run, classes: int) -> Iterator[str]:
    if classes > _MOST_CLASSES:
        return
    splits = list(run.statistics["splits"])
    counts = {split: run.counts(split) for split in splits}
    names = sorted(counts["train"], key=lambda name: -counts["train"][name])
    yield table(
        ["class", *splits],
        ([text(name), *(f"{counts[split][name]:,}" for split in splits)] for name in names),
    )


def _files(run: Run) -> str:
    """List the finished files; ``run.json`` and ``log.txt`` are still being written."""
    folder = run.folder
    handed_over = (folder.onnx, folder.sidecar, folder.best, folder.config, folder.manifest)
    return table(
        ["file", "bytes", "SHA-256"],
        (
            [
                f"`{path.relative_to(run.path).as_posix()}`",
                f"{path.stat().st_size:,}",
                f"`{sha256_of(path)}`",
            ]
            for path in handed_over
        ),
    )


def _made(run: Run) -> Iterator[str]:
    record, config = run.record, run.config
    git, hardware = record["git"], record["hardware"]
    asked = config["data"]["batch_size"]
    batch = record["batch_size"] if asked == "auto" else asked
    yield block(printable(record["command"]), "sh")
    state = "not known (no checkout)"
    if git is not None:
        state = (
            f"`{git['commit']}`{', with changes that were not committed' if git['dirty'] else ''}"
        )
    times = ", ".join(f"{stage} {seconds:,.0f} s" for stage, seconds in record["stages_s"].items())
    yield bullets(
        [
            f"Run `{record['id']}`, started {record['started']}, seed {record['seed']}.",
            f"Code: {state}.",
            f"Hardware: {text(hardware['device'])}, {hardware['cores']} cores, precision "
            f"{hardware['precision']}. Wall time: {times}.",
            f"Best epoch by `{record['best']['metric']}`. AdamW, learning rate "
            f"{config['optimizer']['learning_rate']:g}, batches of {batch}; "
            "`config.yaml` has everything.",
            "Versions: "
            + ", ".join(f"{text(name)} {text(found)}" for name, found in record["versions"].items())
            + ".",
            *(f"Changed while it ran: {text(change, 200)}." for change in record["changes"]),
        ]
    )


def _name(run: Run) -> str:
    return f"{run.sidecar['model']['architecture']} on {_data_name(run)}"


def _data_name(run: Run) -> str:
    """Return the last part of the data's path: the rest is of one machine."""
    return PurePath(run.record["data_root"]).name or "data"


def _file(path: str) -> str:
    return text(PurePath(path).name)
