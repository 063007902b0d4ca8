"""A run: its folder, record, identity, checkpoints, and how to read it back."""
