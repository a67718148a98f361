"""The protocols of the field: their measures and scorers, and the files that they read."""
