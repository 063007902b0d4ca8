"""Observers: they read what steps return, and write what people look at."""
