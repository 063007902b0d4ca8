"""Training elsewhere: what a cloud job is made of, how it is submitted, and what it finds there."""
