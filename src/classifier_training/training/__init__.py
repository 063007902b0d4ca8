"""The run itself. ``fit.py`` reads from top to bottom."""
