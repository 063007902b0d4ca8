"""Training augmentation on single uint8 images."""
