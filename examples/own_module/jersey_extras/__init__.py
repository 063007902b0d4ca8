"""What one project adds to classifier-training."""
