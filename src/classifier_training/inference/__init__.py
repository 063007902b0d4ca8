"""Everything a deployed model needs; numpy, Pillow and onnxruntime only."""
