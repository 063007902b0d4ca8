"""Measure a trained model on a split, and export it so that it does what was measured."""
