"""What can be wrong with data, one family of faults a module; ``run.check_data`` runs them all."""
