"""A run's results in files of other programs."""
