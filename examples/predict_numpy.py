"""Classify images with model.onnx and labels_mapping.json: numpy, Pillow and onnxruntime alone.

    python predict_numpy.py FOLDER IMAGE...

FOLDER holds the two files. A line an image: path, class, confidence. Copy this file and change it;
docs/sidecar.md explains each key.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def load(folder):
    """Return the session and the sidecar, which must belong together."""
    onnx = (folder / "model.onnx").read_bytes()
    sidecar = json.loads((folder / "labels_mapping.json").read_text(encoding="utf-8"))
    assert sidecar["schema_version"] == 1, "this reader knows schema_version 1"
    assert hashlib.sha256(onnx).hexdigest() == sidecar["model"]["sha256"], "of different exports"
    return onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]), sidecar


def resize(image, rules):
    """Make an RGB image a square of image_size pixels."""
    size, bilinear = rules["image_size"], Image.Resampling.BILINEAR  # antialiased, in Pillow
    if rules["resize"] == "squash":
        return image.resize((size, size), bilinear)
    if rules["resize"] == "pad":
        scale = size / max(image.size)
        sides = [min(size, max(1, math.floor(side * scale + 0.5))) for side in image.size]
        square = Image.new("RGB", (size, size), tuple(rules["pad_color"]))
        square.paste(image.resize(sides, bilinear), tuple((size - side) // 2 for side in sides))
        return square
    scale = size / min(image.size)  # crop
    sides = [max(size, math.floor(side * scale + 0.5)) for side in image.size]
    left, top = ((side - size) // 2 for side in sides)
    return image.resize(sides, bilinear).crop((left, top, left + size, top + size))


def tensor_of(path, sidecar):
    """Return (1, 3, H, W) float32. RGB photographs; docs/sidecar.md says more of alpha, 16 bit."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    mean, std = (np.float32(sidecar["normalization"][name]) for name in ("mean", "std"))
    pixels = np.asarray(resize(image, sidecar["preprocessing"]), dtype=np.float32)
    return ((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1)[None]


def main(folder, *paths):
    """Print a line an image."""
    session, sidecar = load(Path(folder))
    for path in paths:
        logits = session.run(["logits"], {"input": tensor_of(path, sidecar)})[0][0]
        weights = np.exp(logits - logits.max())
        best = int(logits.argmax())
        print(path, sidecar["idx_to_class"][str(best)], f"{weights[best] / weights.sum():.6f}")


main(*sys.argv[1:])
