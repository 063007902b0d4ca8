"""Classify images with model.onnx and labels_mapping.json in a pipeline of OpenCV.

    python predict_opencv.py FOLDER IMAGE...

FOLDER holds the two files. A line an image: path, class, confidence. It answers as Pillow does,
because of resize() below: cv2.resize has no antialiased bilinear filter, and with its default it
changes several answers in a hundred. docs/sidecar.md has the figures, and what OpenCV does with
EXIF orientation, alpha and 16 bit. Needs numpy, opencv-python-headless and onnxruntime alone.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def load(folder):
    """Return the session and the sidecar, which must belong together."""
    onnx = (folder / "model.onnx").read_bytes()
    sidecar = json.loads((folder / "labels_mapping.json").read_text(encoding="utf-8"))
    assert sidecar["schema_version"] == 1, "this reader knows schema_version 1"
    assert hashlib.sha256(onnx).hexdigest() == sidecar["model"]["sha256"], "of different exports"
    return onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]), sidecar


def weights(side, target):
    """Return (target, side): a triangle as wide as the step, in steps of 2**-22 as Pillow's are."""
    step = side / target
    centres = (np.arange(target)[:, None] + 0.5) * step
    triangle = np.clip(1 - abs(np.arange(side) + 0.5 - centres) / max(step, 1), 0, None)
    triangle /= triangle.sum(axis=1, keepdims=True)
    return np.floor(triangle * 2**22 + 0.5) / 2**22


def resize(image, width, height):
    """Resize (H, W, 3) uint8 as Pillow's BILINEAR does: along the rows, then along the columns."""
    down = weights(image.shape[0], height)
    for matrix, axes in ((weights(image.shape[1], width), "ow,hwc->hoc"), (down, "oh,hwc->owc")):
        sums = np.einsum(axes, matrix, image.astype(np.float64), optimize=True)
        image = np.clip(np.floor(sums + 0.5), 0, 255).astype(np.uint8)
    return image


def square_of(image, rules):
    """Make an RGB image a square of image_size pixels."""
    size, (height, width) = rules["image_size"], image.shape[:2]
    if rules["resize"] == "squash":
        return resize(image, size, size)
    if rules["resize"] == "pad":
        scale = size / max(height, width)
        height, width = (min(size, max(1, math.floor(s * scale + 0.5))) for s in (height, width))
        square = np.full((size, size, 3), rules["pad_color"], dtype=np.uint8)
        top, left = (size - height) // 2, (size - width) // 2
        square[top : top + height, left : left + width] = resize(image, width, height)
        return square
    scale = size / min(height, width)  # crop
    height, width = (max(size, math.floor(s * scale + 0.5)) for s in (height, width))
    top, left = (height - size) // 2, (width - size) // 2
    return resize(image, width, height)[top : top + size, left : left + size]


def tensor_of(path, sidecar):
    """Return (1, 3, H, W) float32."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)  # applies the EXIF orientation
    assert image is not None, f"cannot read {path}"
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # the network was trained on RGB
    mean, std = (np.float32(sidecar["normalization"][name]) for name in ("mean", "std"))
    pixels = square_of(image, sidecar["preprocessing"]).astype(np.float32)
    return ((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1)[None]


def main(folder, *paths):
    """Print a line an image."""
    session, sidecar = load(Path(folder))
    for path in paths:
        logits = session.run(["logits"], {"input": tensor_of(path, sidecar)})[0][0]
        powers = np.exp(logits - logits.max())
        best = int(logits.argmax())
        print(path, sidecar["idx_to_class"][str(best)], f"{powers[best] / powers.sum():.6f}")


main(*sys.argv[1:])
