"""What inference needs and nothing more: numpy, Pillow and onnxruntime, never torch."""
