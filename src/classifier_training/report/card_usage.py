"""How to feed the model: the preprocessing, complete, and programs that run as they stand."""

from __future__ import annotations

import json
from collections.abc import Iterator

from classifier_training.report.card_facts import CardFacts
from classifier_training.report.card_markdown import block

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


def preprocessing(facts: CardFacts) -> Iterator[str]:
    """Yield the section on preprocessing: the sidecar's own words, all of them."""
    yield "## Preprocessing"
    yield (
        "The scores hold for this preprocessing alone. Normalisation is not in the graph. The "
        "golden vectors of `labels_mapping.json` check another implementation."
    )
    complete = {key: facts.sidecar[key] for key in ("preprocessing", "normalization")}
    yield block(json.dumps(complete, indent=2, ensure_ascii=False), "json")


def how_to_use(facts: CardFacts) -> Iterator[str]:
    """Yield the section with programs; each takes image files as arguments."""
    yield "## How to use it"
    yield "Beside `model.onnx` and `labels_mapping.json`, with the package:"
    yield block(_WITH_PACKAGE, "python")
    yield "Or with numpy, Pillow and onnxruntime alone, for opaque images of 8 bits:"
    yield block(_program(facts.sidecar["preprocessing"]["resize"]), "python")


def _program(resize: str) -> str:
    lines = "\n".join(f"    {line}" for line in _RESIZE[resize].splitlines())
    return _ALONE.format(imports="import math\n" if "math." in lines else "", resize=lines)
