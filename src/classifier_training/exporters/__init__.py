"""Export to ONNX and its variants; each is verified before it is kept."""
