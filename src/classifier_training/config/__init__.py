"""Configuration: composed by Hydra, checked as one frozen object before torch is imported."""
