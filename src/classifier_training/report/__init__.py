"""What a person reads about a run: the page, the model card, the table of runs."""
