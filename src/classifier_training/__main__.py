"""``python -m classifier_training`` is the command line."""

from classifier_training.cli.main import main

main()
