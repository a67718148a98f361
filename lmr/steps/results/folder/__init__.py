"""The folder of a run: which datasets lie in it, what made them, and the files that people read there."""
