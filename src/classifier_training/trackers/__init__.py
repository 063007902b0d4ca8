"""Where numbers and pictures of a run go besides its folder: CSV, TensorBoard, W&B, MLflow."""
