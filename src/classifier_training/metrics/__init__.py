"""Scores of logits against labels: pure functions and one torchmetrics metric."""
