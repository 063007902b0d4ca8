"""What a run leaves behind: its folder, checkpoints, the ONNX file and its sidecar."""
